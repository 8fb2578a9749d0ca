"""DIN, multi-head attention and CAN as target attention: their equations, and what none of them may depend on."""

from __future__ import annotations

import math

import attention_oracle as oracle
import numpy as np
import pytest
import torch

from multidomain.layers.attention import CoActionAttention, DINAttention, MultiHeadAttention, by_event, by_query

D, T = 6, 5
EVERY = pytest.mark.parametrize("kind", ["din", "mha", "can"])


def make(kind: str, **options):
    torch.manual_seed(1)
    if kind == "din":
        layer = DINAttention(features=D, hidden=7, **options)
        torch.nn.init.normal_(layer.hidden.bias)
    elif kind == "mha":
        layer = MultiHeadAttention(
            query_features=D, sequence_features=D, out_features=D, **{"heads": 3, "head_features": 4, **options}
        )
    else:
        layer = CoActionAttention(query_features=D, sequence_features=D, out_features=D, **options)
    return layer.double()


def draw(rows: int = 4, queries: int = T, seed: int = 0):
    """Queries (B, G, D), events (B, T, D), mask (B, T): left-padded, the first row empty, the second full."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(T) >= torch.tensor([T, 0, 2, 4])[:rows, None]
    shapes = ((rows, queries, D), (rows, T, D))
    q, e = (torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes)
    return q, e, mask


@EVERY
def test_each_query_pairs_with_its_own_event_as_the_equations_say(kind):
    layer = make(kind)
    q, e, mask = draw()
    rows = zip(q.numpy(), e.numpy(), mask.numpy(), strict=True)
    expected = [oracle.ATTENTIONS[kind](oracle.state(layer), *row) for row in rows]
    np.testing.assert_allclose(layer(q, e, mask).detach(), np.stack(expected), atol=1e-12)


@pytest.mark.parametrize("queries", [1, 2])
@pytest.mark.parametrize("events", [1, 3], ids=["one history for all rows", "a history for each"])
def test_a_query_of_din_that_meets_many_events_scores_them_as_the_equations_say(queries, events):
    layer, length = make("din"), 2 * D + 2
    g = torch.Generator().manual_seed(3)
    q, e = (torch.randn(n, m, D, generator=g, dtype=torch.float64) for n, m in ((3, queries), (events, length)))
    mask = (torch.arange(length) >= torch.tensor([0, 5, 9])[:events, None]).expand(events, length)
    each = length // queries
    rows = zip(
        q.repeat_interleave(each, 1).numpy(), e.expand(3, -1, -1).numpy(), mask.expand(3, -1).numpy(), strict=True
    )
    expected = [oracle.ATTENTIONS["din"](oracle.state(layer), *row) for row in rows]
    np.testing.assert_allclose(layer(q, e, mask).detach(), np.stack(expected), atol=1e-12)
    parameters = tuple(layer.parameters())
    torch.autograd.gradcheck(lambda q, e, *_: layer(q, e, mask), (q.requires_grad_(), e.requires_grad_(), *parameters))


def test_din_over_many_events_can_be_written_as_a_graph_of_any_number_of_rows():
    layer, length = DINAttention(features=D, hidden=7), 2 * D
    q, e, mask = torch.randn(3, 1, D), torch.randn(3, length, D), torch.ones(3, length, dtype=torch.bool)
    rows = {0: torch.export.Dim("rows", min=1)}
    graph = torch.export.export(layer, (q, e, mask), dynamic_shapes=(rows, rows, rows)).module()
    q, e, mask = (tensor.repeat(2, *[1] * (tensor.dim() - 1)) for tensor in (q, e, mask))
    torch.testing.assert_close(graph(q, e, mask), layer(q, e, mask))


@EVERY
def test_the_gradients_are_those_of_the_equations(kind):
    layer = make(kind)
    q, e, mask = draw(rows=3, queries=2)
    torch.autograd.gradcheck(lambda q, e: layer(q, e, mask), (q.requires_grad_(), e.requires_grad_()))


def test_the_scores_are_the_diagonal_of_all_pairs():
    layer = make("mha", heads=1)
    q, e, mask = draw()
    full = (q @ layer.query[0]) @ (e @ layer.key[0]).transpose(1, 2) / layer.query.shape[2] ** 0.5  # (B, T, T)
    diagonal = full.diagonal(dim1=1, dim2=2).masked_fill(~mask, -torch.inf)
    expected = torch.softmax(diagonal[1:], dim=1)
    torch.testing.assert_close(layer.weights(q, e, mask)[1:], expected)


@EVERY
@pytest.mark.parametrize("chunks", [1, 2, 3, 5])
def test_a_query_for_a_chunk_is_that_query_tiled_over_its_events(kind, chunks):
    layer = make(kind)
    q, e, mask = draw(queries=chunks)
    each = -(-T // chunks)
    tiled = q.repeat_interleave(each, dim=1)[:, -T:]
    torch.testing.assert_close(layer(q, e, mask), layer(tiled, e, mask))
    torch.testing.assert_close(layer.weights(q, e, mask), layer.weights(tiled, e, mask))


def test_the_oldest_chunk_is_the_shorter_one():
    events = torch.arange(1.0, 6.0).view(1, 5, 1)
    parts = by_query(events, 2)
    assert parts[0, :, :, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert torch.equal(by_event(parts, 5), events)


@EVERY
def test_what_padding_holds_does_not_matter(kind):
    layer = make(kind)
    q, e, mask = draw()
    expected = layer(q, e, mask)
    garbage = e.masked_fill(~mask.unsqueeze(-1), 1e3)
    torch.testing.assert_close(layer(q, garbage, mask), expected)
    garbage.requires_grad_()
    layer(q, garbage, mask).sum().backward()
    assert not garbage.grad[~mask].any()


@EVERY
def test_an_empty_history_pools_to_zeros_and_leaves_gradients_finite(kind):
    layer = make(kind)
    q, e, mask = draw()
    s = layer(q, e, mask)
    assert not s[0].any()
    assert s[1:].any(dim=1).all()
    assert not layer.weights(q, e, mask)[0].any()
    s.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@EVERY
def test_weights_are_shares_of_the_events_that_are_there(kind):
    layer = make(kind)
    q, e, mask = draw()
    weights = layer.weights(q, e, mask)
    assert (weights >= 0).all()
    assert not weights[~mask].any()
    torch.testing.assert_close(weights[1:].sum(dim=1), torch.ones(3, dtype=torch.float64))


@EVERY
def test_the_order_of_events_counts_only_through_their_queries(kind):
    layer = make(kind)
    q, e, _ = draw()
    mask = torch.ones(4, T, dtype=torch.bool)
    order = torch.tensor([2, 0, 4, 1, 3])
    torch.testing.assert_close(layer(q[:, order], e[:, order], mask), layer(q, e, mask))
    torch.testing.assert_close(layer(q[:, :1], e[:, order], mask), layer(q[:, :1], e, mask))
    assert not torch.allclose(layer(q, e[:, order], mask), layer(q, e, mask))


@EVERY
@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row(kind, rows):
    q, e, mask = draw()
    assert make(kind)(q[:rows], e[:rows], mask[:rows]).shape == (rows, D)


def test_multi_head_attention_by_hand():
    layer = MultiHeadAttention(query_features=1, sequence_features=1, out_features=1, heads=1, head_features=4)
    with torch.no_grad():
        for weight, value in ((layer.query, 1.0), (layer.key, 1.0), (layer.value, 2.0), (layer.output.weight, 0.25)):
            weight.fill_(value)
    q, e = torch.tensor([[[1.0]]]), torch.tensor([[[7.0], [0.0], [math.log(3) / 2]]])
    mask = torch.tensor([[False, True, True]])
    # Q·K = 4 e, / √4: scores 0 and log 3, weights 1/4 and 3/4; V = 2 e in four columns of which W_O takes the mean
    torch.testing.assert_close(layer.weights(q, e, mask), torch.tensor([[0.0, 0.25, 0.75]]))
    torch.testing.assert_close(layer(q, e, mask), torch.tensor([[0.75 * math.log(3)]]))


def test_the_activation_unit_without_softmax_sums_with_the_weights_as_they_are():
    layer = make("din", softmax=False)
    q, e, mask = draw()
    rows = zip(q.numpy(), e.numpy(), mask.numpy(), strict=True)
    expected = [oracle.din(oracle.state(layer), *row, softmax=False) for row in rows]
    np.testing.assert_allclose(layer(q, e, mask).detach(), np.stack(expected), atol=1e-12)
    assert (layer.weights(q, e, mask)[1] < 0).any()


def test_a_candidates_network_of_another_shape():
    layer = make("can", micro=(3,), orders=2)
    q, e, mask = draw()
    rows = zip(q.numpy(), e.numpy(), mask.numpy(), strict=True)
    expected = [oracle.can(oracle.state(layer), *row, micro=(3,), orders=2) for row in rows]
    np.testing.assert_allclose(layer(q, e, mask).detach(), np.stack(expected), atol=1e-12)


@EVERY
def test_small_embeddings_reach_the_output_undiminished(kind):
    """Tables start near 0.01: no product of small numbers may leave a history that nothing can learn from."""
    layer = make(kind)
    q, e, mask = draw()
    size = layer(q * 0.01, e * 0.01, mask)[1:].abs().mean().item()
    assert 3e-4 < size < 1e-1
