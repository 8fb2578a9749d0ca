from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain.layers.domain_linear import DomainLinear, StarLinear
from multidomain.training import domain_optimizer
from multidomain.training.domain_optimizer import DomainAdam

M = 3


@pytest.fixture(autouse=True, params=["small weights", "large weights"], scope="module")
def size(request):
    """Small weights are updated together, large ones one by one: here all are taken for one or the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain_optimizer, "LARGE", 1 if request.param == "large weights" else 10**9)
        yield


def star(seed: int = 0) -> StarLinear:
    torch.manual_seed(seed)
    layer = StarLinear(in_features=4, out_features=2, domains=M)
    layer.sparse = True
    return layer


def learn(layer: StarLinear, optimizer: torch.optim.Optimizer, domains: list[int], number: int) -> None:
    x = torch.randn(len(domains), 4, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    layer.zero_grad()
    layer(x, torch.tensor(domains)).square().sum().backward()
    optimizer.step()


def of_domains(layer: StarLinear) -> list[torch.nn.Parameter]:
    return [layer.domain_weight, layer.domain_bias]


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.lists(st.integers(0, M), min_size=1, max_size=6), min_size=1, max_size=6))
def test_every_domain_has_the_adam_of_its_own_steps(steps):
    """Beside it, a PyTorch Adam for each domain, which steps when the domain has rows."""
    layer = star()
    optimizer = DomainAdam(of_domains(layer), lr=0.1)
    own = [
        [torch.nn.Parameter(part[p].detach().clone()) for part in (layer.domain_weight, layer.domain_bias)]
        for p in range(M)
    ]
    adams = [torch.optim.Adam(parts, lr=0.1) for parts in own]
    for number, domains in enumerate(steps):
        dense = copy.deepcopy(layer)
        dense.sparse = False
        x = torch.randn(len(domains), 4, generator=torch.Generator().manual_seed(number))
        dense.zero_grad()
        dense(x, torch.tensor(domains)).square().sum().backward()
        for p in set(domains) - {M}:
            for part, gradient in zip(own[p], (dense.domain_weight.grad, dense.domain_bias.grad), strict=True):
                part.grad = gradient[p]
            adams[p].step()
        learn(layer, optimizer, domains, number)
        for p in range(M):
            torch.testing.assert_close(layer.domain_weight[p], own[p][0])
            torch.testing.assert_close(layer.domain_bias[p], own[p][1])


def test_a_domain_without_rows_keeps_weights_moments_and_count():
    layer = star()
    optimizer = DomainAdam(of_domains(layer), lr=0.1)
    learn(layer, optimizer, [0, 1, 2], 0)
    before = {name: part.clone() for name, part in layer.state_dict().items()}
    moments = copy.deepcopy(optimizer.state[layer.domain_weight])
    learn(layer, optimizer, [2, 2, M], 1)
    after = optimizer.state[layer.domain_weight]
    assert torch.equal(layer.domain_weight[:2], before["domain_weight"][:2])
    assert not torch.equal(layer.domain_weight[2], before["domain_weight"][2])
    assert after["step"].tolist() == [1, 1, 2]
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(after[name][:2], moments[name][:2])


def test_with_rows_of_every_domain_it_is_ordinary_adam():
    ours, theirs = star(), star()
    theirs.sparse = False
    optimizers = [DomainAdam(of_domains(ours), lr=0.1), torch.optim.Adam(of_domains(theirs), lr=0.1)]
    for number in range(4):
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            learn(layer, optimizer, [0, 1, 2, 1, M], number)
    for one, other in zip(of_domains(ours), of_domains(theirs), strict=True):
        torch.testing.assert_close(one, other)


def test_a_dense_gradient_moves_every_domain():
    torch.manual_seed(0)
    layer = DomainLinear.he(in_features=4, out_features=2, domains=M)
    optimizer = DomainAdam(layer.parameters(), lr=0.1)
    before = layer.domain_weight.detach().clone()
    layer.every(torch.randn(3, 4)).square().sum().backward()
    optimizer.step()
    assert (layer.domain_weight != before).flatten(1).any(1).all()
    assert optimizer.state[layer.domain_weight]["step"].tolist() == [1] * (M + 1)


def test_a_batch_of_unknown_domains_alone_moves_no_domain():
    layer = star()
    optimizer = DomainAdam(of_domains(layer), lr=0.1)
    before = layer.domain_weight.detach().clone()
    learn(layer, optimizer, [M, M], 0)
    assert torch.equal(layer.domain_weight, before)


def test_the_state_goes_through_a_state_dict():
    first, second = star(), star()
    optimizers = [DomainAdam(of_domains(layer), lr=0.1) for layer in (first, second)]
    learn(first, optimizers[0], [0, 2], 0)
    second.load_state_dict(first.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for layer, optimizer in zip((first, second), optimizers, strict=True):
        learn(layer, optimizer, [0, 1], 1)
    assert torch.equal(first.domain_weight, second.domain_weight)
    assert optimizers[1].state[second.domain_weight]["step"].tolist() == [2, 1, 1]
