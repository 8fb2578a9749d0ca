from __future__ import annotations

import numpy as np
import torch

from multidomain.layers.auxiliary import AuxiliaryNetwork
from multidomain.layers.mlp import MLP


def test_the_auxiliary_network_is_two_layers_on_the_domain_and_z():
    torch.manual_seed(0)
    network = AuxiliaryNetwork(features=3, domains=2, embedding_dim=2, hidden=4)
    network(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))  # training meets both domains
    network.eval()
    s = {key: value.detach().double().numpy() for key, value in network.named_parameters()}
    z, domain = torch.randn(3, 3), torch.tensor([1, 0, 2])
    x = np.concatenate([s["domain.weight"][domain.numpy()], z.double().numpy()], axis=1)
    hidden = np.maximum(x @ s["mlp.layers.0.weight"].T + s["mlp.layers.0.bias"], 0)
    expected = (hidden @ s["mlp.layers.1.weight"].T + s["mlp.layers.1.bias"])[:, 0]
    np.testing.assert_allclose(network(z, domain).detach(), expected, atol=1e-5)


def test_the_unknown_slot_is_trained_though_the_data_never_hold_it():
    network = AuxiliaryNetwork(features=3, domains=2, embedding_dim=2, unknown_rate=0.05)
    network(torch.randn(2000, 3), torch.zeros(2000, dtype=torch.int64)).sum().backward()
    assert network.domain.weight.grad[2].any()


def test_without_hidden_layers_an_mlp_is_linear():
    layer = MLP(in_features=3, hidden=[])
    x = torch.randn(4, 3)
    torch.testing.assert_close(layer(2 * x) - layer(x), layer(x) - layer(torch.zeros(4, 3)))
