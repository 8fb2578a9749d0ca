from __future__ import annotations

import tracemalloc

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from multidomain.training.embedding_optimizer import LazyAdam
from multidomain.training.row_optimizer import CHUNK, RowOptimizer, _Rows
from multidomain.training.rowwise_adagrad import RowwiseAdagrad

BOTH = pytest.mark.parametrize("kind", [LazyAdam, RowwiseAdagrad])


@BOTH
def test_a_step_makes_nothing_of_the_tables_size(kind):
    """What PyTorch allocates and what NumPy does, of a table of 8 MB, stays far below it."""
    embedding = nn.Embedding(500_000, 4, sparse=True)
    optimizer = kind(embedding.parameters(), lr=0.1)
    embedding(torch.randint(0, 500_000, (1000,))).square().sum().backward()
    tracemalloc.start()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        optimizer.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert sum(max(event.self_cpu_memory_usage, 0) for event in profiled.events()) < 1_000_000


@BOTH
def test_more_rows_than_are_updated_together_are_all_updated_alike(kind):
    torch.manual_seed(0)
    rows = 2 * CHUNK + 7
    embedding, start = nn.Embedding(rows, 2, sparse=True), torch.randn(rows, 2)
    optimizer = kind(embedding.parameters(), lr=0.1)
    gradient = torch.randn(rows, 2)
    with torch.no_grad():
        embedding.weight.copy_(start)
    (embedding(torch.arange(rows)) * gradient).sum().backward()
    optimizer.step()
    for row in (0, CHUNK - 1, CHUNK, 2 * CHUNK, rows - 1):
        alone = nn.Embedding.from_pretrained(start[row : row + 1].clone(), freeze=False, sparse=True)
        one = kind(alone.parameters(), lr=0.1)
        (alone(torch.tensor([0])) * gradient[row]).sum().backward()
        one.step()
        torch.testing.assert_close(embedding.weight[row], alone.weight[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 16)])
def test_rows_are_read_and_written_as_by_indexing(dtype, shape):
    tensor = torch.randn(*shape).to(dtype)
    expected, chosen = tensor.clone(), torch.tensor([4, 0, 2])
    rows = _Rows(tensor)
    assert torch.equal(rows.take(chosen), expected[chosen])
    rows.put(chosen, expected[chosen] * 2)
    expected[chosen] *= 2
    assert torch.equal(tensor, expected)


def test_a_table_that_is_not_in_one_piece_is_read_and_written_too():
    tensor = torch.randn(3, 5).t()
    expected, chosen = tensor.clone(), torch.tensor([1, 3])
    rows = _Rows(tensor)
    rows.put(chosen, rows.take(chosen) + 1)
    expected[chosen] += 1
    assert torch.equal(tensor, expected)


def test_autograd_notices_that_a_row_was_written():
    weight = torch.randn(4, 2, requires_grad=True)
    squared = weight.square().sum()
    _Rows(weight).put(torch.tensor([1]), torch.zeros(1, 2))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squared.backward()


def test_the_optimizers_of_rows_are_these():
    assert {one.__name__ for one in RowOptimizer.__subclasses__()} == {"LazyAdam", "RowwiseAdagrad"}
