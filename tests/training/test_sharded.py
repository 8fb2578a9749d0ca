"""A table divided by rows among the workers is the table that one has, and no worker has all of it."""

from __future__ import annotations

import gc
import multiprocessing
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from learnable import INPUTS, write_encoded
from safetensors.torch import load_file
from test_distributed import SMALL, assert_same, faulty, fitted, losses, made, under_torchrun
from torch import Tensor, nn

from multidomain.batch import Batch
from multidomain.errors import ConfigurationError, DataError
from multidomain.inputs import InputSchema
from multidomain.layers import synchronised
from multidomain.layers.embedding import InputEmbedding
from multidomain.layers.remote import RemoteTable
from multidomain.models.star import Star
from multidomain.tensors import EncodedSplit
from multidomain.training import pieces, shards
from multidomain.training.config import TrainingConfig
from multidomain.training.prediction import predicted_logits
from multidomain.training.rowwise_adagrad import RowwiseAdagrad
from multidomain.training.shards import ShardedTable, share_of_rows

ADAGRAD = {"embedding_optimizer": "rowwise_adagrad", "embedding_learning_rate": 0.05}
SHARDED = {"workers": 2, "embedding_shards": "rows"}
torchrec = pytest.mark.skipif(bool(shards.missing()), reason=f"TorchRec is not installed: {shards.INSTALL}")
if sys.platform == "linux" and not shards.missing():  # imports take longer than what is tested
    multiprocessing.set_forkserver_preload(
        ["torch._dynamo", "multidomain.training.loop", "multidomain.models", *shards.MODULES]
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return write_encoded(tmp_path_factory.mktemp("log") / "encoded", {"train": 401, "validation": 101})


# ------------------------------------------------------------------------------------------------- without TorchRec


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"goes with embedding_optimizer: rowwise_adagrad alone, got 'adam'"),
        ({**ADAGRAD, "clip_norm": 1.0}, r"clip_norm must be null, got 1"),
        ({**ADAGRAD, "embedding_shards": "columns"}, r"embedding_shards must be one of none, rows, got 'columns'"),
    ],
)
def test_settings_that_do_not_go_with_shards_are_refused(config, message):
    with pytest.raises(ConfigurationError, match=message):
        TrainingConfig(**{**SHARDED, **config})


def test_without_torchrec_the_message_says_what_to_install(log, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "missing", lambda: ["fbgemm_gpu"])
    with pytest.raises(ConfigurationError, match=r"fbgemm_gpu cannot be found[\s\S]*--no-deps .*fbgemm-gpu-cpu==1"):
        fitted(made("dnn", normalization="none"), log, tmp_path, **ADAGRAD, **SHARDED)


def test_the_requirements_file_and_the_message_name_the_same_packages():
    lines = (Path(__file__).parents[2] / "requirements-sharded.txt").read_text().splitlines()
    named = [line.split(" ")[0] for line in lines if line and not line.startswith("#")]
    assert f"pip install --no-deps {' '.join(named)}" == shards.INSTALL


@pytest.mark.parametrize(
    ("model", "workers", "device", "message"),
    [
        ({"sparse": False}, 2, "cpu", "the model has sparse: false"),
        ({}, 40, "cpu", "would leave a worker without rows: the table has 76, workers is 40"),
        ({}, 2, "cuda", "is for workers on CPUs, the device is cuda"),
    ],
)
def test_a_table_that_cannot_be_shared_is_refused(model, workers, device, message, monkeypatch):
    monkeypatch.setattr(shards, "missing", list)
    with pytest.raises(ConfigurationError, match=message):
        shards.check(made("dnn", normalization="none", **model), workers, torch.device(device))


def test_a_single_worker_has_the_whole_table_and_its_result(log, tmp_path):
    one, other = made("dnn", normalization="none"), made("dnn", normalization="none")
    expected = fitted(one, log, tmp_path, **ADAGRAD)
    assert losses(fitted(other, log, tmp_path, **ADAGRAD, embedding_shards="rows")) == losses(expected)
    assert_same(other, one, rtol=0, atol=0)


def test_what_a_result_depends_on_does_not_name_the_shards():
    assert TrainingConfig(**ADAGRAD, **SHARDED).settings() == TrainingConfig(**ADAGRAD).settings()


@given(st.integers(0, 50), st.integers(1, 9))
def test_every_row_is_one_workers(rows, workers):
    shares = [share_of_rows(rows, worker, workers) for worker in range(workers)]
    assert [row for share in shares for row in range(rows)[share]] == list(range(rows))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 100))
def test_a_file_written_in_pieces_is_the_file_of_the_whole(tmp_path_factory, sizes, width, seed):
    path = tmp_path_factory.mktemp("pieces") / "one.safetensors"
    whole = torch.randn(sum(sizes), width, generator=torch.Generator().manual_seed(seed))
    others = {"seen": torch.tensor([True, False, True]), "step": torch.tensor(3.0), "ids": torch.arange(3)}
    pieces.begin(path, others, {"table": pieces.Shape(tuple(whole.shape))})
    for start, part in zip(np.cumsum([0, *sizes]), whole.split(sizes), strict=False):
        pieces.put(path, "table", part, int(start))
    found = load_file(path)
    assert found.keys() == {"table", *others}
    assert torch.equal(found["table"], whole)
    assert all(torch.equal(found[name], value) for name, value in others.items())
    last = torch.empty(sizes[-1], width)
    pieces.fill(last, path, "table", sum(sizes[:-1]))
    assert torch.equal(last, whole[len(whole) - sizes[-1] :])
    assert pieces.tensors_but(path, "table").keys() == others.keys()


class Elsewhere(RemoteTable):
    """Has the table after all, and counts what it is asked for."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.asked = nn.Parameter(weight), []

    def forward(self, rows: Tensor) -> Tensor:
        self.asked += rows.tolist()
        return F.embedding(rows, self.weight)

    def anchor(self) -> Tensor:
        return torch.zeros(())

    def set_rate(self, factor: float) -> None:
        pass


@pytest.mark.parametrize("rows", [np.array([3, 3, 5, 8]), np.array([], int)], ids=["repeated", "none"])
@pytest.mark.parametrize("pool_history", [True, False])
def test_fetched_rows_are_read_as_the_table_is_and_each_is_asked_for_once(log, rows, pool_history):
    torch.manual_seed(0)
    plain = InputEmbedding(schema=INPUTS, features=4, sparse=False, pool_history=pool_history, unknown_rate=0)
    remote = InputEmbedding(schema=INPUTS, features=4, pool_history=pool_history, unknown_rate=0)
    remote.load_state_dict(plain.state_dict())
    del remote.table
    remote.table = Elsewhere(plain.table.weight.detach().clone())
    batch = EncodedSplit(log, "train").batch(rows)
    for layer in (plain, remote):
        x = layer(batch)
        total = (x.fields**2).sum() + (x.events() ** 3).sum() + x.history("past_item").sum()
        total.backward()
    one, other = plain(batch), remote(batch)
    assert torch.equal(one.fields, other.fields)
    assert torch.equal(one.mask, other.mask)
    assert torch.equal(one.lookup.ids, other.lookup.ids)
    torch.testing.assert_close(remote.table.weight.grad, plain.table.weight.grad)
    assert len(remote.table.asked) == 2 * len(set(remote.table.asked))


# -------------------------------------------------------------------------------- two processes, the table by itself

ROWS, WIDTH = 11, 4
STEPS = [([1, 3, 3, 10, 3], [3, 7, 9, 0]), ([2, 2, 6], []), ([5, 1], [1, 1, 1, 10])]  # repeated, shared, none
RATES = [1.0, 0.5, 0.25]


def _whole() -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))


def _factors(step: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(step + 1)
    one, other = (torch.randn(len(ids), WIDTH, generator=random) for ids in STEPS[step])
    return one, other


def _alone(rank: int, meeting: str, decay: float, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2,
                            timeout=timedelta(seconds=60))  # fmt: skip
    torch.set_num_threads(1)
    table = ShardedTable(rows=ROWS, features=WIDTH, lr=0.1, weight_decay=decay)
    table.weight.copy_(_whole()[table.own])
    for step, ids in enumerate(STEPS):
        table.set_rate(RATES[step])
        different, places = torch.unique(torch.tensor(ids[rank], dtype=torch.int64), return_inverse=True)
        loss = (F.embedding(places, table(different)) * _factors(step)[rank]).sum()
        (loss + table.anchor()).backward()
    with torch.inference_mode():
        seen = table(torch.arange(ROWS)).clone()
    every = {id(t): t.numel() for t in (*table._parallel[0].parameters(), table.square)}
    told = {"weight": table.weight, "square": table.square, "seen": seen, "numbers": sum(every.values())}
    torch.save(told, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@torchrec
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_fused_optimizer_is_the_projects_and_each_worker_holds_half(tmp_path, decay):
    torch.multiprocessing.start_processes(
        _alone, (str(tmp_path / "meeting"), decay, str(tmp_path)), nprocs=2, start_method="forkserver"
    )
    told = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    table = nn.Embedding(ROWS, WIDTH, sparse=True)
    table.weight.data.copy_(_whole())
    optimizer = RowwiseAdagrad(table.parameters(), lr=0.1, weight_decay=decay)
    for step, ids in enumerate(STEPS):
        optimizer.param_groups[0]["lr"] = 0.1 * RATES[step]
        optimizer.zero_grad()
        (table(torch.tensor([*ids[0], *ids[1]])) * torch.cat(_factors(step))).sum().backward()
        optimizer.step()
    torch.testing.assert_close(torch.cat([one["weight"] for one in told]), table.weight.detach())
    torch.testing.assert_close(torch.cat([one["square"] for one in told]), optimizer.state[table.weight]["square"])
    assert all(torch.equal(one["seen"], told[0]["seen"]) for one in told)
    torch.testing.assert_close(told[0]["seen"], table.weight.detach())
    assert [one["numbers"] for one in told] == [6 * (WIDTH + 1), 5 * (WIDTH + 1)]


# --------------------------------------------------------------------------------------------- trainings as a user's


@torchrec
@pytest.mark.parametrize(
    ("name", "options", "config"),
    [
        ("dnn", {"normalization": "none"}, {"schedule": "cosine", "negative_rate": 0.5, "evaluation_batch_size": 50}),
        ("star", {}, {"epochs": 3, "learning_rate": 0.05}),  # the first epoch is the best
        ("ads", {}, {}),
        ("adaptdhm", {"clusters": 3}, {"batching": "domain"}),
        ("hmdn", {"codebook_size": 4}, {"epochs": 1}),
        ("deepfm", {}, {"embedding_weight_decay": 0.1}),  # has a second table
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_two_workers_with_half_the_table_each_have_the_loss_curve_of_one(log, tmp_path, name, options, config):
    alone, together = made(name, **options), made(name, **options)
    first = fitted(alone, log, tmp_path, **ADAGRAD, **config)
    second = fitted(together, log, tmp_path, **ADAGRAD, **SHARDED, **config)
    np.testing.assert_allclose(losses(second), losses(first), rtol=2e-5)
    assert second.best_epoch == first.best_epoch
    assert_same(together, alone)
    split = EncodedSplit(log, "validation")
    np.testing.assert_allclose(predicted_logits(together, split), predicted_logits(alone, split), rtol=1e-3, atol=2e-4)
    assert list(tmp_path.iterdir()) == []


class Watched(Star):
    """Leaves, of each worker, the most bytes that any tensor of its process has at a training batch."""

    folder = ""

    def forward(self, batch: Batch) -> Tensor:
        tensors = [one for one in gc.get_objects() if type(one) in (Tensor, nn.Parameter)]
        here = [one for one in tensors if one.layout == torch.strided and one.device.type == "cpu"]
        most = max(one.untyped_storage().nbytes() for one in here)
        (Path(self.folder) / f"{synchronised.rank()}").write_text(str(most))
        return super().forward(batch)


@torchrec
def test_no_worker_has_a_tensor_as_large_as_the_table_and_what_can_be_learnt_is_learnt(tmp_path):
    sizes = {"user": 20_000, "item": 30, "genre": 6}
    inputs = InputSchema(**{**INPUTS.__dict__, "vocabularies": sizes})
    log = write_encoded(tmp_path / "encoded", {"train": 3000, "validation": 500}, inputs=inputs)
    torch.manual_seed(0)
    model = Watched(inputs, normalization="none", **SMALL)
    model.folder = str(tmp_path)
    result = fitted(model, log, tmp_path / "checkpoints", **ADAGRAD, **SHARDED)
    table = model.inputs.embedding.table.weight.nbytes
    most = [int((tmp_path / f"{rank}").read_text()) for rank in range(2)]
    assert all(0.5 * table <= one < 0.51 * table for one in most)
    assert result.history[-1]["validation_auc"] > 0.6


@torchrec
def test_a_worker_that_is_killed_changes_nothing(log, tmp_path):
    whole, model = faulty(), faulty(1, 8, "killed")  # the second epoch begins with batch 6
    expected = fitted(whole, log, tmp_path / "whole", **ADAGRAD, **SHARDED)
    result = fitted(model, log, tmp_path / "killed", **ADAGRAD, **SHARDED)
    assert result.resumed_epoch == 1
    assert losses(result) == losses(expected)
    assert_same(model, whole, rtol=0, atol=0)


@torchrec
@pytest.mark.parametrize(
    ("before", "after"),
    [(SHARDED, {}), ({}, SHARDED), (SHARDED, {**SHARDED, "workers": 3})],
    ids=["two halves, then one whole", "one whole, then two halves", "two halves, then three thirds"],
)
def test_a_checkpoint_is_gone_on_from_by_any_number_of_workers_with_or_without_shards(log, tmp_path, before, after):
    setting = {"epochs": 3, "learning_rate": 0.02, **ADAGRAD}
    whole, stopped, model = faulty(), faulty(0, 13, "error"), faulty()  # the third epoch begins with batch 11
    table = stopped.inputs.embedding.table.weight
    expected = fitted(whole, log, tmp_path / "whole", **setting)
    start = table.detach().clone()
    with pytest.raises(DataError, match=r"^something of this worker's own$"):
        fitted(stopped, log, tmp_path / "stopped", **setting, **before)
    if before:
        assert torch.equal(table, start)  # after an error the model is what it was
    checkpoint = tmp_path / "stopped" / "epoch-0002"
    assert load_file(checkpoint / "model.safetensors").keys() == whole.state_dict().keys()
    assert load_file(checkpoint / "optimizers.safetensors")["embeddings.0.step"] == 10
    result = fitted(model, log, tmp_path / "stopped", **setting, **after)
    assert result.resumed_epoch == 2
    np.testing.assert_allclose(losses(result), losses(expected), rtol=2e-5)
    assert_same(model, whole)


@torchrec
def test_under_torchrun_the_table_is_divided_too(log, tmp_path):
    found, weights = under_torchrun(tmp_path, log, embedding_shards="rows", **ADAGRAD)
    model = made("dnn", normalization="none")
    np.testing.assert_allclose(found, losses(fitted(model, log, tmp_path / "alone", **ADAGRAD)), rtol=2e-5)
    torch.testing.assert_close(weights, dict(model.state_dict()), rtol=1e-3, atol=2e-4)
