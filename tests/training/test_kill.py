"""kill -9 at random moments, then again: the weights are those of a run that nobody disturbed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from learnable import INPUTS, write_encoded
from safetensors.torch import load_file, save_file

from multidomain.models import build
from multidomain.tensors import EncodedSplit
from multidomain.training.config import TrainingConfig
from multidomain.training.loop import fit

CONFIG = TrainingConfig(epochs=5, batch_size=50, patience=None)
PROCESSES = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
if sys.platform == "linux":
    PROCESSES.set_forkserver_preload(["torch._dynamo", "multidomain.training.loop", "multidomain.models.star"])


def train(encoded: Path, checkpoints: Path, result: Path) -> None:
    """Everything a run does, in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = build("star", INPUTS, embedding_dim=8, hidden=[32, 16], dropout=0.1)
    splits = EncodedSplit(encoded, "train"), EncodedSplit(encoded, "validation")
    fit(model, *splits, CONFIG, seed=1, device="cpu", checkpoints=checkpoints, show_progress=False)
    save_file(model.state_dict(), result.with_suffix(".unfinished"))
    os.replace(result.with_suffix(".unfinished"), result)


def start(*arguments: Path) -> multiprocessing.process.BaseProcess:
    process = PROCESSES.Process(target=train, args=arguments)
    process.start()
    return process


@pytest.fixture
def encoded(tmp_path) -> Path:
    return write_encoded(tmp_path / "encoded", {"train": 3000, "validation": 300})


def epochs(checkpoints: Path) -> list[str]:
    return sorted(path.name for path in checkpoints.glob("epoch-*"))


def wait_for_epoch(process, checkpoints: Path, epoch: int) -> None:
    while process.is_alive() and f"epoch-{epoch:04d}" not in epochs(checkpoints):
        time.sleep(0.002)


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(encoded, tmp_path):
    whole = tmp_path / "whole.safetensors"
    start(encoded, tmp_path / "undisturbed", whole).join()

    checkpoints, result = tmp_path / "checkpoints", tmp_path / "result.safetensors"
    moments = random.Random(7)
    killed = 0
    for _ in range(10):
        process = start(encoded, checkpoints, result)
        if killed < 3:
            wait_for_epoch(process, checkpoints, killed + 1)
            time.sleep(moments.uniform(0.0, 0.1))
            process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if result.exists():
            break
        assert epochs(checkpoints)[-1] >= f"epoch-{killed:04d}"  # no epoch is ever lost
    assert killed >= 2  # a very fast machine may be done before
    assert process.exitcode == 0
    assert list(checkpoints.iterdir()) == []
    expected, found = load_file(whole), load_file(result)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(encoded, tmp_path):
    """Kills at every kind of moment of saving: the folder that remains can always be read."""
    checkpoints = tmp_path / "checkpoints"
    moments = random.Random(3)
    for _ in range(3):
        process = start(encoded, checkpoints, tmp_path / "result.safetensors")
        seen = time.monotonic() + 10
        while process.is_alive() and time.monotonic() < seen and not list(checkpoints.glob(".unfinished*")):
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.01))
        process.kill()
        process.join()
        for path in checkpoints.glob("epoch-*"):
            assert load_file(path / "model.safetensors").keys()
            assert (path / "state.json").stat().st_size > 0
