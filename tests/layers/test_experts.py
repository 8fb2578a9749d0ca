from __future__ import annotations

import numpy as np
import torch

from multidomain.layers.domain_linear import Segments
from multidomain.layers.experts import DomainExperts, Experts, mix


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


def _domain_experts() -> DomainExperts:
    torch.manual_seed(0)
    experts = DomainExperts(in_features=3, hidden=[5, 2], domains=2, experts=4)
    for layer in experts.layers:
        torch.nn.init.normal_(layer.domain_bias)
    return experts


def _by_hand(experts: DomainExperts, x: np.ndarray, p: int, number: int) -> np.ndarray:
    for layer in experts.layers:
        weight, bias = (t[p, number].detach().numpy() for t in (layer.domain_weight, layer.domain_bias))
        x = np.maximum(x @ weight + bias[0], 0)
    return x


def test_every_domain_has_experts_of_its_own_on_one_input_or_on_one_each():
    experts = _domain_experts()
    together, apart = torch.randn(6, 3), torch.randn(3, 6, 3)
    for x, of in ((together, lambda p: together), (apart, lambda p: apart[p])):
        outputs = experts.every(x).detach()
        assert outputs.shape == (3, 4, 6, 2)
        for p in range(3):
            for number in range(4):
                expected = _by_hand(experts, of(p).numpy(), p, number)
                np.testing.assert_allclose(outputs[p, number], expected, rtol=1e-5, atol=1e-6)


def test_segmented_rows_meet_the_experts_of_their_own_domain_alone():
    experts = _domain_experts()
    domain = torch.tensor([0, 0, 2, 2, 2])  # sorted; domain 1 is absent, 2 is unknown
    x = torch.randn(5, 3)
    outputs = experts.segmented(x, Segments.of(domain, 2))
    assert outputs.shape == (4, 5, 2)
    for row, p in enumerate(domain.tolist()):
        for number in range(4):
            expected = _by_hand(experts, x[row].numpy(), p, number)
            np.testing.assert_allclose(outputs[number, row].detach(), expected, rtol=1e-5, atol=1e-6)
    outputs.sum().backward()
    for layer in experts.layers:
        assert layer.domain_weight.grad[0].any()
        assert layer.domain_weight.grad[2].any()
        assert not layer.domain_weight.grad[1].any()


def test_a_batch_without_rows_has_outputs_without_rows():
    experts = _domain_experts()
    x = torch.randn(0, 3)
    assert experts.every(x).shape == (3, 4, 0, 2)
    assert experts.segmented(x, Segments.of(torch.zeros(0, dtype=torch.int64), 2)).shape == (4, 0, 2)


def test_experts_of_domains_drop_activations_in_training_alone():
    experts = DomainExperts(in_features=3, hidden=[50], domains=2, experts=2, dropout=0.5)
    x, segments = torch.randn(6, 3), Segments.of(torch.tensor([0, 0, 1, 1, 2, 2]), 2)
    assert not torch.equal(experts.segmented(x, segments), experts.segmented(x, segments))
    assert not torch.equal(experts.every(x), experts.every(x))
    experts.eval()
    assert torch.equal(experts.segmented(x, segments), experts.segmented(x, segments))
    rows = torch.arange(6)
    torch.testing.assert_close(
        experts.segmented(x, segments), experts.every(x)[segments.domain, :, rows].transpose(0, 1)
    )
