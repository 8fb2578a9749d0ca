from __future__ import annotations

import numpy as np
import torch

from multidomain.layers.experts import Experts, mix


def test_each_expert_is_a_network_of_its_own_and_the_gate_weighs_them():
    torch.manual_seed(0)
    experts = Experts(in_features=3, hidden=[5, 2], experts=4)
    for bias in experts.biases:
        torch.nn.init.normal_(bias)
    x, gate = torch.randn(6, 3), torch.softmax(torch.randn(6, 4), dim=1)
    expected = np.zeros((6, 2))
    for e in range(4):
        h = x.numpy()
        for weight, bias in zip(experts.weights, experts.biases, strict=True):
            h = np.maximum(h @ weight[e].detach().numpy() + bias[e, 0].detach().numpy(), 0)
        expected += gate[:, e : e + 1].numpy() * h
    np.testing.assert_allclose(mix(gate, experts(x)).detach(), expected, rtol=1e-5, atol=1e-6)


def test_experts_take_an_input_each():
    experts = Experts(in_features=3, hidden=[2], experts=2)
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(experts(x)[1], experts(x[1])[1])
