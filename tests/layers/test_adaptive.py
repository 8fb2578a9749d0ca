"""PSRG and PCRG: Eq. 2-7 of ADS."""

from __future__ import annotations

import attention_oracle as oracle
import numpy as np
import pytest
import torch

from multidomain.layers.adaptive import QueryGenerator, SequenceGenerator
from multidomain.layers.products import Linear
from multidomain.models import ads

D_D, D_S, T, B = 3, 4, 6, 5


def filled(module: torch.nn.Module) -> torch.nn.Module:
    """With weights that are no longer those of the start."""
    torch.manual_seed(2)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_model_gives_them_their_names():
    assert ads.SequenceGenerator is SequenceGenerator
    assert ads.QueryGenerator is QueryGenerator


@pytest.mark.parametrize("eta", [2.0, 3.5])
def test_the_sequence_is_that_of_equations_2_to_5(eta):
    module = filled(SequenceGenerator(domain_features=D_D, sequence_features=D_S, hidden=7, eta=eta))
    e_d, e_s = draw(B, D_D), draw(B, T, D_S, seed=1)
    rows = zip(e_d.numpy(), e_s.numpy(), strict=True)
    expected = [oracle.psrg(oracle.state(module), *row, eta=eta) for row in rows]
    np.testing.assert_allclose(module(e_d, e_s).detach(), np.stack(expected), atol=1e-12)
    assert module.shared_weight.shape == (D_S, D_S)
    assert module.scale == eta
    kinds = [Linear, torch.nn.ReLU, Linear]
    assert [type(layer) for layer in module.weight_generator] == kinds
    assert [type(layer) for layer in module.bias_generator] == kinds


@pytest.mark.parametrize("items", [1, 2, 3, 4, 6, 10])
def test_the_queries_are_those_of_equations_6_and_7(items):
    module = filled(
        QueryGenerator(domain_features=D_D, candidate_features=D_S, length=T, hidden=7, items_per_chunk=items)
    )
    e_d, e_q = draw(B, D_D), draw(B, D_S, seed=1)
    rows = zip(e_d.numpy(), e_q.numpy(), strict=True)
    expected = np.stack([oracle.pcrg(oracle.state(module), *row, T) for row in rows])
    queries = module(e_d, e_q)
    assert queries.shape == (B, T, D_S)
    np.testing.assert_allclose(queries.detach(), expected, atol=1e-12)


def test_the_most_recent_items_share_the_last_query():
    module = filled(QueryGenerator(domain_features=D_D, candidate_features=D_S, length=5, items_per_chunk=2))
    queries = module(draw(1, D_D), draw(1, D_S, seed=1))[0]
    same = [torch.equal(queries[t], queries[t + 1]) for t in range(4)]
    assert same == [False, True, False, True]  # 1 + 2 + 2
    assert module.chunks == 3


def test_at_the_start_sequence_and_queries_are_what_they_were():
    sequence = SequenceGenerator(domain_features=D_D, sequence_features=D_S)
    queries = QueryGenerator(domain_features=D_D, candidate_features=D_S, length=T)
    e_d, e_s, e_q = draw(B, D_D).float(), draw(B, T, D_S).float(), draw(B, D_S).float()
    assert torch.equal(sequence(e_d, e_s), e_s)
    assert torch.equal(queries(e_d, e_q), e_q.unsqueeze(1).expand(-1, T, -1))
    assert torch.equal(sequence.shared_weight, torch.eye(D_S))
    assert torch.equal(sequence.private(e_d), torch.full((B, D_S, D_S), 0.5))


def test_the_first_gradients_are_those_of_equations_2_to_5_at_the_start():
    """With L = Σ R ⊙ E_S', A = Rᵀ E_S of each row is dL/dW: W_shared gets Σ η/2 A; b_2 of the weights η/4 I ⊙ A."""
    module = SequenceGenerator(domain_features=D_D, sequence_features=D_S).double()
    e_d, e_s, r = draw(B, D_D), draw(B, T, D_S, seed=1), draw(B, T, D_S, seed=2)
    (module(e_d, e_s) * r).sum().backward()
    a = np.einsum("bti,btj->bij", r.numpy(), e_s.numpy())
    np.testing.assert_allclose(module.shared_weight.grad, a.sum(0), atol=1e-12)  # η/2 = 1
    expected = 0.5 * (np.eye(D_S) * a).sum(0)
    np.testing.assert_allclose(module.weight_generator[2].bias.grad, expected.reshape(-1), atol=1e-12)
    np.testing.assert_allclose(module.bias_generator[2].bias.grad, r.sum((0, 1)), atol=1e-12)
    hidden = np.maximum(e_d.numpy() @ module.bias_generator[0].weight.detach().numpy().T, 0)
    np.testing.assert_allclose(module.bias_generator[2].weight.grad, r.sum(1).numpy().T @ hidden, atol=1e-12)
    assert not module.weight_generator[0].weight.grad.any()  # behind a last layer of zeros: from the second step on


def test_the_gradients_away_from_the_start():
    sequence = filled(SequenceGenerator(domain_features=D_D, sequence_features=2))
    queries = filled(QueryGenerator(domain_features=D_D, candidate_features=2, length=3, items_per_chunk=2))
    e_d = draw(2, D_D).requires_grad_()
    torch.autograd.gradcheck(sequence, (e_d, draw(2, 3, 2, seed=1).requires_grad_()))
    torch.autograd.gradcheck(queries, (e_d, draw(2, 2, seed=1).requires_grad_()))


def test_rows_are_personalized_each_by_its_own_domain_features():
    sequence = filled(SequenceGenerator(domain_features=D_D, sequence_features=D_S))
    queries = filled(QueryGenerator(domain_features=D_D, candidate_features=D_S, length=T))
    e_d, e_s, e_q = draw(2, D_D), draw(1, T, D_S).expand(2, -1, -1), draw(1, D_S).expand(2, -1)
    for module, x in ((sequence, e_s), (queries, e_q)):
        one, other = module(e_d, x)
        assert not torch.allclose(one, other)
        torch.testing.assert_close(module(e_d[1:], x[1:])[0], other)
        assert module(e_d[:0], x[:0]).shape[0] == 0
