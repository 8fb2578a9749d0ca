from __future__ import annotations

import numpy as np
import torch

from multidomain.layers.auxiliary import AuxiliaryNetwork
from multidomain.layers.mlp import MLP


def test_the_auxiliary_network_is_two_layers_on_the_condition_and_z():
    torch.manual_seed(0)
    network = AuxiliaryNetwork(features=3, condition=2, hidden=4)
    s = {key: value.detach().double().numpy() for key, value in network.named_parameters()}
    z, condition = torch.randn(3, 3), torch.randn(3, 2)
    x = np.concatenate([condition.double().numpy(), z.double().numpy()], axis=1)
    hidden = np.maximum(x @ s["mlp.layers.0.weight"].T + s["mlp.layers.0.bias"], 0)
    expected = (hidden @ s["mlp.layers.1.weight"].T + s["mlp.layers.1.bias"])[:, 0]
    np.testing.assert_allclose(network(z, condition).detach(), expected, atol=1e-5)


def test_without_hidden_layers_an_mlp_is_linear():
    layer = MLP(in_features=3, hidden=[])
    x = torch.randn(4, 3)
    torch.testing.assert_close(layer(2 * x) - layer(x), layer(x) - layer(torch.zeros(4, 3)))
