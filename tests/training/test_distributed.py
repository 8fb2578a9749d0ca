"""Several workers do what one does: the same losses and weights up to rounding, whatever happens to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from learnable import INPUTS, write_encoded
from torch import Tensor, nn

from multidomain.batch import Batch
from multidomain.errors import ConfigurationError, DataError
from multidomain.layers import synchronised
from multidomain.layers.normalization import BatchNorm, PartitionedNorm
from multidomain.layers.quantization import ResidualQuantizer
from multidomain.layers.synchronised import Place
from multidomain.models import build
from multidomain.models.base import MultiDomainModel
from multidomain.models.star import Star
from multidomain.tensors import EncodedSplit
from multidomain.training import agreement, loop, workers
from multidomain.training.config import TrainingConfig
from multidomain.training.exchange import GradientExchange, merged, spread
from multidomain.training.guard import TrainingError
from multidomain.training.loading import EpochLoader
from multidomain.training.loop import fit
from multidomain.training.optimizers import Optimizers

SMALL = {"embedding_dim": 4, "hidden": [8], "dropout": 0.0}
ROWS = 401  # the last batch of 100 has one row, and one of two workers none


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return write_encoded(tmp_path_factory.mktemp("log") / "encoded", {"train": ROWS, "validation": 101})


def fitted(model: MultiDomainModel, log: Path, folder: Path, **config):
    chosen = TrainingConfig(**{"epochs": 2, "batch_size": 100, "learning_rate": 0.005, "patience": None} | config)
    splits = EncodedSplit(log, "train"), EncodedSplit(log, "validation")
    return fit(model, *splits, chosen, seed=3, device="cpu", checkpoints=folder, show_progress=False)


def made(name: str, **options) -> MultiDomainModel:
    torch.manual_seed(0)
    return build(name, INPUTS, **{**SMALL, **options})


def assert_same(one: nn.Module, other: nn.Module, **tolerance) -> None:
    expected = other.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, expected[name], **({"rtol": 1e-3, "atol": 2e-4} | tolerance), msg=name)


def losses(result) -> list[float]:
    return [line[key] for line in result.history for key in ("train_loss", "validation_loss", "validation_auc")]


# ------------------------------------------------------------------------------------------------ without processes


@st.composite
def parts_of_a_gradient(draw):
    table, workers_ = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    rows = [draw(st.lists(st.integers(0, table - 1), unique=True).map(sorted)) for _ in range(workers_)]
    return table, rows, draw(st.integers(0, 1000))


@given(parts_of_a_gradient())
@settings(deadline=None)
def test_rows_that_are_exchanged_add_up_to_the_dense_gradient(case):
    table, rows, seed = case
    random = torch.Generator().manual_seed(seed)
    indices = [torch.tensor(one, dtype=torch.int64) for one in rows]
    values = [torch.randn(len(one), 3, generator=random) for one in rows]
    dense = sum(torch.zeros(table, 3).index_add(0, i, v) for i, v in zip(indices, values, strict=True))
    found = merged(indices, values, torch.Size([table, 3]))
    touched = sorted({row for one in rows for row in one})
    assert found._indices()[0].tolist() == touched
    torch.testing.assert_close(found.to_dense(), dense)
    among = torch.tensor(touched, dtype=torch.int64)
    blocks = sum(spread(i, v, among) for i, v in zip(indices, values, strict=True))
    torch.testing.assert_close(torch.zeros(table, 3).index_copy(0, among, blocks), dense)


@pytest.mark.parametrize("options", [{}, {"negative_rate": 0.4}, {"batching": "domain"}], ids=str)
@pytest.mark.parametrize("number", [2, 3])
def test_shares_put_together_are_the_batches_of_one_worker(log, monkeypatch, options, number):
    split = EncodedSplit(log, "train")

    def batches() -> list[Batch]:
        weights = np.arange(split.rows, dtype=np.float32)  # a weight that names the row
        return list(EpochLoader(split, batch_size=100, seed=5, weights=weights, **options).epoch(2))

    whole, shares = batches(), []
    monkeypatch.setattr(synchronised, "workers", lambda: number)
    for rank in range(number):
        monkeypatch.setattr(synchronised, "rank", lambda rank=rank: rank)
        shares.append(batches())
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat([part.weight for part in parts]), batch.weight)
        assert torch.equal(torch.cat([part.categorical for part in parts]), batch.categorical)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_smaller_than_the_number_of_workers_is_refused():
    with pytest.raises(ConfigurationError, match=r"workers is 8, but a batch has 4 rows \(batch_size\)"):
        TrainingConfig(batch_size=4, workers=8)


def test_more_workers_than_rows_are_refused(log, tmp_path):
    with pytest.raises(DataError, match=r"workers is 402, but the train split has 401 rows"):
        fitted(made("dnn", normalization="none"), log, tmp_path, workers=ROWS + 1, batch_size=500)


def test_more_workers_than_cores_are_told(log, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(workers, "_start", lambda job: None)
    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    job = workers.Job(made("dnn", normalization="none"), EncodedSplit(log, "train"), EncodedSplit(log, "validation"),
                      TrainingConfig(workers=3), 0, tmp_path, "cpu", False, None)  # fmt: skip
    workers.fit_together(job)
    assert "3 workers share 2 cores" in caplog.text


def test_what_a_result_depends_on_does_not_name_the_workers():
    assert TrainingConfig(workers=2).settings() == TrainingConfig().settings()


def test_a_digest_is_of_every_bit_and_of_every_tensor_an_empty_one_too():
    model = made("star")
    model.register_buffer("none", torch.zeros(0, 4))
    before = agreement.digest(model)
    with torch.no_grad():
        model.inputs.embedding.table.weight[3, 0] += 1e-7
        model.inputs.distribution.domain.known.seen[1] = True
    changed = [name for name, a, b in zip(model.state_dict(), before, agreement.digest(model), strict=True) if a != b]
    assert changed == ["inputs.embedding.table.weight", "inputs.distribution.domain.known.seen"]


# --------------------------------------------------------------------------- two processes, all of these questions


def _z() -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    domain = torch.tensor([0] * 20 + [1] * 9 + [2] * 5 + [3] * 6)  # of three: enough rows, too few; 3 is unknown
    return (
        torch.randn(40, 6, generator=random),
        domain[torch.randperm(40, generator=random)],
        torch.randn(40, 6, generator=random),
    )


def _normalized(kind: str, own: slice) -> dict[str, Tensor]:
    """Outputs, gradients and moments of two steps; of the second only the first row is there."""
    z, domain, factor = _z()
    layer = PartitionedNorm(features=6, domains=3) if kind == "partitioned" else BatchNorm(6)
    answers = {}
    for step, rows in enumerate((slice(0, 40), slice(0, 1))):
        mine = slice(*[min(end, rows.stop) for end in (own.start, own.stop)])
        x = z[mine].clone().requires_grad_()
        out = layer(x, domain[mine])
        (out * factor[mine]).sum().backward()
        answers |= {f"out{step}": out.detach(), f"grad{step}": x.grad}
    weights = {name: p.grad for name, p in layer.named_parameters()}
    return answers | {f"sum {k}": v for k, v in weights.items()} | dict(layer.named_buffers())


def _quantized(own: slice) -> dict[str, Tensor]:
    torch.manual_seed(4)
    layer = ResidualQuantizer(features=6, depth=2, codebook_size=5, restart_after=2)
    z = _z()[0]
    for _ in range(4):
        s, codes, _ = layer(z[own])
    return {"s": s.detach(), "codes": codes, **{f"buffer {k}": v for k, v in layer.state_dict().items()}}


def _gradients(log: Path, rows: list[int], of: int) -> dict[str, Tensor]:
    """Of a batch whose first half has domain 0 alone and whose second half has 0 and 2: none has domain 1."""
    model = made("star", unknown_rate=0.0)
    Optimizers(model, TrainingConfig(), steps_per_epoch=1)  # makes the gradients of domains sparse
    batch = EncodedSplit(log, "train").batch(np.array(rows))
    loss = nn.functional.binary_cross_entropy_with_logits(model(batch), batch.label, reduction="sum") / of
    loss.backward()
    if not synchronised.alone():
        GradientExchange(model).combine(loss.detach().reshape(1))
    return {name: p.grad for name, p in model.named_parameters()}


def _halves(log: Path) -> tuple[list[int], list[int]]:
    domain = np.asarray(EncodedSplit(log, "train").domain)
    of = [np.flatnonzero(domain == p).tolist() for p in range(3)]
    return of[0][:11], of[0][11:20] + of[2][:12]


def _questions(rank: int, meeting: str, log: Path, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2,
                            timeout=timedelta(seconds=60))  # fmt: skip
    torch.set_num_threads(1)
    own = slice(0, 13) if rank == 0 else slice(13, 40)
    answers = {kind: _normalized(kind, own) for kind in ("partitioned", "batch")}
    answers["quantizer"] = _quantized(own)
    halves = _halves(log)
    answers["gradients"] = _gradients(log, halves[rank], len(halves[0]) + len(halves[1]))
    synchronised.stand(Place(own.start, 40))
    torch.manual_seed(2)
    answers["draws"] = synchronised.draws((own.stop - own.start, 3), torch.device("cpu"))
    synchronised.stand(None)
    model = made("star")
    splits = EncodedSplit(log, "train"), EncodedSplit(log, "validation")
    config = TrainingConfig(epochs=1, batch_size=100)
    loop.fit_here(model, *splits, config, 3, folder / "replicas", "cpu", False, None)
    model = made("dnn", normalization="none")
    with torch.no_grad():
        model.inputs.embedding.table.weight[3, 0] += rank * 1e-7
    try:
        agreement.settle(model, 1)
    except TrainingError as error:
        answers["message"] = str(error)
    torch.save(answers, folder / f"answers-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def answers(log, tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.start_processes(
        _questions, (str(folder / "meeting"), log, folder), nprocs=2, start_method="forkserver"
    )
    return [torch.load(folder / f"answers-{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("kind", ["partitioned", "batch"])
def test_normalization_of_two_halves_is_that_of_the_whole(answers, kind):
    whole = _normalized(kind, slice(0, 40))
    one, other = (answer[kind] for answer in answers)
    for name, expected in whole.items():
        if name.startswith(("out", "grad")):
            found = torch.cat([one[name], other[name]])
        else:
            found = one[name] + other[name] if name.startswith("sum") else one[name]
            assert name.startswith("sum") or torch.equal(one[name], other[name])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=name)


def test_codebooks_are_seeded_counted_and_restarted_by_the_rows_of_both(answers):
    whole = _quantized(slice(0, 40))
    one, other = (answer["quantizer"] for answer in answers)
    for name, expected in whole.items():
        found = one[name] if name.startswith("buffer") else torch.cat([one[name], other[name]])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=name)
    assert all(torch.equal(one[name], other[name]) for name in whole if name.startswith("buffer"))


def test_combined_gradients_are_those_of_the_whole_batch_and_the_same_bits(answers, log):
    first, second = _halves(log)
    whole = _gradients(log, first + second, len(first) + len(second))
    one, other = (answer["gradients"] for answer in answers)
    for name, expected in whole.items():
        if expected is None:
            assert one[name] is None
            continue
        torch.testing.assert_close(one[name].to_dense(), expected.to_dense(), rtol=1e-4, atol=1e-6, msg=name)
        assert torch.equal(one[name].to_dense(), other[name].to_dense())
    private = [name for name in whole if name.startswith("fcn.") and "domain_" in name]
    assert private
    for name in private:  # domain 2, which the second alone has, moves in both; domain 1, which none has, in none
        for found in (one[name], other[name]):
            assert found._indices()[0].tolist() == [0, 2]


def test_random_numbers_of_rows_are_those_of_the_whole_batch(answers):
    torch.manual_seed(2)
    assert torch.equal(torch.cat([answer["draws"] for answer in answers]), torch.rand(40, 3))


def test_replicas_that_differ_by_a_bit_are_found(answers):
    for answer in answers:
        assert "the weights 'inputs.embedding.table.weight' of worker 1 differ" in answer["message"]


# --------------------------------------------------------------------------------------------- trainings as a user's


@pytest.mark.parametrize(
    ("name", "options", "config"),
    [
        ("dnn", {"normalization": "none"}, {"embedding_optimizer": "rowwise_adagrad", "negative_rate": 0.5}),
        ("star", {}, {"epochs": 1}),
        ("star", {"normalization": "none"}, {"batching": "domain", "schedule": "cosine", "clip_norm": 0.5}),
        ("adaptdhm", {"clusters": 3}, {}),
        ("hmdn", {"codebook_size": 4}, {}),
        ("hierrec", {}, {"epochs": 1, "batch_size": 99}),
        ("ads", {}, {}),
        ("mulann", {}, {"epochs": 1}),
        ("adasparse", {"sparsity": [0.6, 0.7], "ramp": 5}, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_two_workers_have_the_loss_curve_of_one(log, tmp_path, name, options, config):
    alone, together = made(name, **options), made(name, **options)
    answer = signal.getsignal(signal.SIGTERM)
    expected = losses(fitted(alone, log, tmp_path, **config))
    found = losses(fitted(together, log, tmp_path, workers=2, **config))
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    if name != "hierrec":  # biases before batch normalization: their gradient is what rounding leaves of 0
        assert_same(together, alone)
    assert together.logit_offset == alone.logit_offset
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is answer  # the agent's own is gone with it


class Faulty(Star):
    """Meets with an accident in one worker, at one training batch of the first start."""

    accident: tuple[int, int, str] | None = None
    met = 0

    def forward(self, batch: Batch) -> Tensor:
        self.met += self.training
        first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if self.accident and first_start and self.training and self.accident[:2] == (synchronised.rank(), self.met):
            if self.accident[2] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("something of this worker's own")
        return super().forward(batch)


def faulty(*accident) -> Faulty:
    torch.manual_seed(0)
    model = Faulty(INPUTS, normalization="none", **SMALL)
    model.accident = accident or None
    return model


def test_a_worker_that_is_killed_in_an_epoch_changes_nothing(log, tmp_path):
    whole = faulty()
    expected = fitted(whole, log, tmp_path / "whole", workers=2)
    model = faulty(1, 8, "killed")  # the second epoch begins with batch 6
    result = fitted(model, log, tmp_path / "killed", workers=2)
    assert result.resumed_epoch == 1
    assert losses(result) == losses(expected)
    assert_same(model, whole, rtol=0, atol=0)


def test_an_error_of_one_worker_is_told_as_its_own_and_another_number_of_workers_goes_on(log, tmp_path):
    expected = fitted(faulty(), log, tmp_path / "whole")
    with pytest.raises(DataError, match=r"^something of this worker's own$"):
        fitted(faulty(1, 8, "error"), log, tmp_path / "stopped", workers=2)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["epoch-0001"]
    result = fitted(faulty(), log, tmp_path / "stopped", workers=1)
    assert result.resumed_epoch == 1
    np.testing.assert_allclose(losses(result), losses(expected), rtol=2e-5)


def test_two_workers_go_on_where_one_stopped(log, tmp_path):
    expected = fitted(faulty(), log, tmp_path / "whole")
    with pytest.raises(DataError, match="own"):
        fitted(faulty(0, 8, "error"), log, tmp_path / "stopped")
    result = fitted(faulty(), log, tmp_path / "stopped", workers=2)
    assert result.resumed_epoch == 1
    np.testing.assert_allclose(losses(result), losses(expected), rtol=2e-5)


def under_torchrun(folder: Path, log: Path, **setting: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and weights of a DNN, trained by two processes that torchrun starts."""
    script = folder / "run.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, sys
        sys.path[:0] = {sys.path!r}
        from pathlib import Path
        import torch
        from multidomain.training import workers
        from test_distributed import fitted, losses, made
        if int(os.environ["RANK"]):
            workers.serve()
        else:
            folder, model = Path({str(folder)!r}), made("dnn", normalization="none")
            found = fitted(model, Path({str(log)!r}), folder / "checkpoints", **{setting!r})
            torch.save((losses(found), dict(model.state_dict())), folder / "result.pt")
            workers.dismiss()
        """)
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "result.pt")


def test_under_torchrun_the_first_process_trains_and_the_others_help(log, tmp_path):
    found, weights = under_torchrun(tmp_path, log)
    model = made("dnn", normalization="none")
    np.testing.assert_allclose(found, losses(fitted(model, log, tmp_path / "alone")), rtol=2e-5)
    torch.testing.assert_close(weights, dict(model.state_dict()), rtol=1e-3, atol=2e-4)
