from __future__ import annotations

import errno
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from learnable import INPUTS, write_encoded
from torch import nn

from multidomain.batch import Batch
from multidomain.calibration import logistic
from multidomain.errors import ConfigurationError, DataError, UserError
from multidomain.evaluation.metrics import auc
from multidomain.models import build
from multidomain.models.base import MultiDomainModel
from multidomain.tensors import EncodedSplit
from multidomain.training import checkpoint, loop
from multidomain.training.config import TrainingConfig
from multidomain.training.guard import GradientGuard, TrainingError
from multidomain.training.loop import fit
from multidomain.training.optimizers import Optimizers, decays
from multidomain.training.prediction import predicted_logits

SMALL = {"embedding_dim": 4, "hidden": [8], "dropout": 0.1}


def star(seed: int = 0) -> MultiDomainModel:
    torch.manual_seed(seed)
    return build("star", INPUTS, **SMALL)


def trained(encoded: Path, folder: Path, *, seed: int = 0, model: MultiDomainModel | None = None, **config):
    model = model or star()
    settings = TrainingConfig(**({"epochs": 2, "batch_size": 200, "learning_rate": 0.01} | config))
    splits = EncodedSplit(encoded, "train"), EncodedSplit(encoded, "validation")
    result = fit(model, *splits, settings, seed=seed, device="cpu", checkpoints=folder, show_progress=False)
    return model, result


def predict(model: nn.Module, split: EncodedSplit, **options) -> np.ndarray:
    return logistic(predicted_logits(model, split, **options).astype(np.float64))


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Probe(MultiDomainModel):
    """A linear model that does something unusual at chosen calls in training."""

    def __init__(self, *, loss_breaks_at: int = 0, gradient_breaks_at: int = 0) -> None:
        super().__init__(INPUTS)
        self.register_buffer("batches", torch.zeros(()))
        self.linear = nn.Linear(1, 1)
        self.unused = nn.Linear(1, 1)
        self.calls, self.loss_breaks_at, self.gradient_breaks_at = 0, loss_breaks_at, gradient_breaks_at

    def forward(self, batch: Batch) -> torch.Tensor:
        scores = self.linear(batch.numerical)[:, 0]
        self.calls += self.training
        self.batches += self.training
        if self.training and self.calls == self.loss_breaks_at:
            return scores * float("inf")
        if self.training and self.calls == self.gradient_breaks_at:
            return scores + (self.linear.bias - self.linear.bias.detach()).abs().sqrt()
        return scores

    def diagnostics(self) -> dict[str, float]:
        return {"batches": self.batches.item()}


def test_training_learns(encoded, tmp_path):
    _, result = trained(encoded, tmp_path, epochs=4, patience=None)
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert result.history[result.best_epoch - 1]["validation_auc"] > 0.75
    assert [record["epoch"] for record in result.history] == [1, 2, 3, 4]
    assert set(result.history[0]) == {
        "epoch", "train_loss", "validation_loss", "validation_auc", "seconds", "rows_per_second",
    }  # fmt: skip


@pytest.mark.parametrize("shown", [True, False])
def test_what_a_model_tells_of_itself_is_logged_and_kept_after_each_epoch(encoded, tmp_path, caplog, shown):
    def train(model):
        splits = EncodedSplit(encoded, "train"), EncodedSplit(encoded, "validation")
        config = TrainingConfig(epochs=2, batch_size=200, patience=None)
        return fit(model, *splits, config, seed=0, device="cpu", checkpoints=tmp_path, show_progress=shown)

    with caplog.at_level(logging.INFO):
        history = train(Probe()).history
    assert [record["batches"] for record in history] == [15, 30]
    assert next(iter(history[0])) == "epoch"
    first, second = (record.message for record in caplog.records if record.message.startswith("epoch "))
    assert first.endswith("batches 15.0000")
    assert second.endswith("batches 30.0000")
    assert ("validation_auc" in first) == (not shown)


def test_a_resumed_run_keeps_what_the_model_told_before(encoded, tmp_path, monkeypatch):
    stopped_after(1, encoded, tmp_path, monkeypatch, model=Probe(), epochs=2, patience=None)
    _, result = trained(encoded, tmp_path, model=Probe(), epochs=2, patience=None)
    assert result.resumed_epoch == 1
    assert [record["batches"] for record in result.history] == [15, 30]


def test_the_same_seed_gives_the_same_weights_bit_by_bit(encoded, tmp_path):
    one, _ = trained(encoded, tmp_path / "1", seed=5)
    torch.rand(3)  # whatever happened to the global generator
    other, _ = trained(encoded, tmp_path / "2", seed=5)
    different, _ = trained(encoded, tmp_path / "3", seed=6)
    assert equal(one, other)
    assert not equal(one, different)


def test_bf16_computes_in_training_alone_and_the_cpu_is_left_in_float32_unless_asked(encoded, tmp_path):
    exact, rough = (trained(encoded, tmp_path / p, precision=p) for p in ("float32", "bfloat16"))
    assert equal(exact[0], trained(encoded, tmp_path / "auto", precision="auto")[0])
    assert not equal(exact[0], rough[0])
    assert {parameter.dtype for parameter in rough[0].parameters()} == {torch.float32}
    areas = [result.history[-1]["validation_auc"] for _, result in (exact, rough)]
    assert abs(areas[0] - areas[1]) < 0.02
    split = EncodedSplit(encoded, "validation")
    assert auc(np.array(split.label), predict(rough[0], split)) == pytest.approx(
        max(line["validation_auc"] for line in rough[1].history), abs=1e-12
    )


def test_training_leaves_the_global_random_state_alone(encoded, tmp_path):
    model = star()
    before = torch.get_rng_state()
    trained(encoded, tmp_path, model=model, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("monitor", ["auc", "logloss"])
def test_the_model_holds_the_best_epoch_whether_or_not_training_stopped_early(encoded, tmp_path, monitor):
    for patience in (2, None):
        config = {"epochs": 8, "patience": patience, "learning_rate": 0.05, "monitor": monitor}
        model, result = trained(encoded, tmp_path, **config)
        key, sign = ("validation_auc", 1) if monitor == "auc" else ("validation_loss", -1)
        scores = [sign * record[key] for record in result.history]
        assert result.best_epoch == 1 + int(np.argmax(scores)) < 8  # it overfits
        assert len(scores) == (8 if patience is None else min(8, result.best_epoch + patience))
        split = EncodedSplit(encoded, "validation")
        best = result.history[result.best_epoch - 1]["validation_auc"]
        assert auc(np.array(split.label), predict(model, split, device="cpu")) == pytest.approx(best, abs=1e-6)
        assert not model.training


def test_a_training_that_ends_while_validation_still_improves_says_so(encoded, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    _, result = trained(encoded, tmp_path / "short", epochs=2, learning_rate=0.002)
    gain = result.history[1]["validation_auc"] - result.history[0]["validation_auc"]
    assert gain > 0.002
    assert result.best_epoch == 2
    assert f"still rising ({gain:+.4f} in epoch 2, the last): more epochs may do better" in caplog.text
    caplog.clear()
    _, result = trained(encoded, tmp_path / "long", epochs=40, patience=1)
    assert result.best_epoch < len(result.history) < 40
    assert "still rising" not in caplog.text


def test_validation_loss_is_the_log_loss_of_the_predictions(encoded, tmp_path):
    model, result = trained(encoded, tmp_path, epochs=1)
    split = EncodedSplit(encoded, "validation")
    p = predict(model, split, device="cpu", batch_size=64)
    expected = -np.mean(split.label * np.log(p) + (1 - split.label) * np.log(1 - p))
    assert result.history[0]["validation_loss"] == pytest.approx(expected, rel=1e-6)


def test_predictions_are_probabilities_that_do_not_depend_on_the_batch_size(encoded):
    model, split = star().train(), EncodedSplit(encoded, "test")
    p = predict(model, split, device="cpu")
    assert p.dtype == np.float64
    assert p.shape == (700,)
    assert model.training
    np.testing.assert_allclose(p, predict(model, split, device="cpu", batch_size=7), atol=1e-6)


def test_training_by_domain_works(encoded, tmp_path):
    _, result = trained(encoded, tmp_path, batching="domain", schedule="cosine", clip_norm=1.0, weight_decay=0.01)
    assert result.history[-1]["validation_auc"] > 0.6


def test_a_loss_that_is_not_finite_names_epoch_and_step(encoded, tmp_path):
    with pytest.raises(TrainingError) as error:
        trained(encoded, tmp_path, model=Probe(loss_breaks_at=22))
    message = str(error.value)
    assert isinstance(error.value, UserError)
    assert message.startswith("Training stopped in epoch 2, step 7: the loss is ")
    assert "the gradient of 'linear.weight'" in message
    assert "Lower learning_rate (now 0.01)" in message


def test_a_gradient_that_is_not_finite_names_its_parameter(encoded, tmp_path):
    with pytest.raises(TrainingError, match=r"epoch 1, step 3: the gradient of 'linear\.bias' is not finite"):
        trained(encoded, tmp_path, model=Probe(gradient_breaks_at=3))
    assert list(tmp_path.iterdir()) == []


def test_a_numerical_input_that_is_not_finite_is_named(encoded, tmp_path):
    shutil.copytree(encoded, tmp_path / "damaged")
    values = np.load(tmp_path / "damaged" / "train" / "numerical.npy", mmap_mode="r+")
    values[17] = np.inf
    values.flush()
    with pytest.raises(
        TrainingError, match=r"a numerical input is not finite.*numerical features of the training rows"
    ):
        trained(tmp_path / "damaged", tmp_path / "checkpoints")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_with_one_class_is_refused_before_training(encoded, tmp_path, split):
    shutil.copytree(encoded, tmp_path / "one")
    np.save(tmp_path / "one" / split / "label.npy", np.zeros(EncodedSplit(encoded, split).rows, np.float32))
    with pytest.raises(DataError, match=rf"The {split} split cannot be used: all [\d,]+ labels are 0, both 0 and 1"):
        trained(tmp_path / "one", tmp_path / "checkpoints")


def test_an_empty_validation_split_is_refused(tmp_path):
    folder = write_encoded(tmp_path / "encoded", {"train": 50, "validation": 0})
    with pytest.raises(DataError, match="The validation split has no rows"):
        trained(folder, tmp_path / "checkpoints")


def test_the_progress_bar_shows_loss_auc_and_rows(encoded, tmp_path, capsys):
    splits = EncodedSplit(encoded, "train"), EncodedSplit(encoded, "validation")
    config = TrainingConfig(epochs=1, batch_size=50)
    fit(star(), *splits, config, seed=0, device="cpu", checkpoints=tmp_path, show_progress=True)
    shown = capsys.readouterr().err
    assert "epoch 1/1: 100%" in shown
    assert "rows/s" in shown
    assert "loss=" in shown
    assert "validation_auc=0." in shown


def test_tables_have_the_lazy_optimizer_domains_one_of_their_own_and_the_rest_the_dense_one():
    config = TrainingConfig(embedding_learning_rate=0.5, learning_rate=0.25, weight_decay=0.1)
    model = star()
    optimizers = Optimizers(model, config, steps_per_epoch=10)
    (table,) = optimizers.named["embeddings"].param_groups[0]["params"]
    assert table is model.inputs.embedding.table.weight
    assert optimizers.named["embeddings"].param_groups[0]["lr"] == 0.5
    dense = [p for group in optimizers.named["dense"].param_groups for p in group["params"]]
    domains = optimizers.named["domains"].param_groups[0]["params"]
    assert optimizers.named["domains"].param_groups[0]["lr"] == 0.25
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in domains} == {
        name for name in names.values() if name.startswith("fcn.") and ".domain_" in name
    }
    assert sorted(map(id, [table, *domains, *dense])) == sorted(names)


def test_weight_decay_spares_what_rests_at_one():
    spared = {name.rpartition(".")[2] for name, p in star().named_parameters() if not decays(name, p)}
    assert {"domain_weight", "domain_bias", "bias"} <= spared
    decayed = {name for name, p in star().named_parameters() if decays(name, p)}
    assert "fcn.layers.0.weight" in decayed
    assert not any("normalization" in name for name in decayed)


def test_the_cosine_schedule_falls_from_the_rate_to_zero():
    model = nn.Linear(1, 1)
    optimizers = Optimizers(model, TrainingConfig(epochs=2, schedule="cosine", learning_rate=1.0), steps_per_epoch=5)
    rates = []
    for number in range(10):
        model(torch.ones(1, 1)).sum().backward()
        optimizers.step(number)
        rates.append(optimizers.named["dense"].param_groups[0]["lr"])
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.5 * (1 + np.cos(np.pi * 0.9)))


def test_clipping_limits_one_step_of_the_whole_gradient(encoded, tmp_path):
    model, batch = star(), EncodedSplit(encoded, "train").batch(slice(0, 100))
    loss = model(batch).sum()
    loss.backward()
    GradientGuard(model, TrainingConfig(clip_norm=0.5)).watch(1, batch, loss)
    grads = [
        p.grad.coalesce().values() if p.grad.is_sparse else p.grad for p in model.parameters() if p.grad is not None
    ]
    assert torch.stack([g.norm() for g in grads]).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_a_finished_run_leaves_no_checkpoint_and_starts_afresh(encoded, tmp_path, caplog):
    first, _ = trained(encoded, tmp_path)
    assert list(tmp_path.iterdir()) == []
    again, result = trained(encoded, tmp_path)
    assert result.resumed_epoch == 0
    assert equal(first, again)


def stopped_after(epoch: int, encoded: Path, folder: Path, monkeypatch, **config) -> None:
    """Trains until the checkpoint of this epoch was written."""
    original = loop._Run._one_epoch

    def one_epoch(self, state):
        if state.epoch == epoch:
            raise KeyboardInterrupt
        original(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_one_epoch", one_epoch)
        with pytest.raises(KeyboardInterrupt):
            trained(encoded, folder, **config)


@pytest.mark.parametrize(
    ("name", "embeddings"), [("star", "adam"), ("star", "rowwise_adagrad"), ("dnn", "adam"), ("hmdn", "adam")]
)
def test_a_stopped_run_goes_on_to_the_same_weights(encoded, tmp_path, monkeypatch, name, embeddings):
    def model():
        torch.manual_seed(0)
        return build(name, INPUTS, embedding_dim=4, hidden=[8, 4])

    config = {"epochs": 5, "patience": None, "learning_rate": 0.005, "schedule": "cosine"}
    config["embedding_optimizer"] = embeddings
    whole, expected = trained(encoded, tmp_path / "whole", model=model(), **config)
    stopped_after(3, encoded, tmp_path / "stopped", monkeypatch, model=model(), **config)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["epoch-0003"]
    resumed, result = trained(encoded, tmp_path / "stopped", model=model(), **config)
    assert result.resumed_epoch == 3
    assert equal(whole, resumed)
    times = {"seconds", "rows_per_second"}
    strip = [[{k: v for k, v in record.items() if k not in times} for record in h.history] for h in (expected, result)]
    assert strip[0] == strip[1]
    assert result.best_epoch == expected.best_epoch > 3


@pytest.mark.parametrize(
    ("change", "part"),
    [({"seed": 1}, "seed"), ({"learning_rate": 0.5}, "configuration"), ({"model": "wider"}, "architecture")],
)
def test_a_checkpoint_of_another_run_is_not_used(encoded, tmp_path, monkeypatch, caplog, change, part):
    stopped_after(1, encoded, tmp_path, monkeypatch)
    if "model" in change:
        change = {"model": build("star", INPUTS, embedding_dim=4, hidden=[9])}
    with caplog.at_level(logging.WARNING):
        _, result = trained(encoded, tmp_path, **change)
    assert result.resumed_epoch == 0
    assert f"is not used: it was made with other {part}. Training starts afresh." in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_other_data_is_not_used(encoded, tmp_path, monkeypatch, caplog):
    shutil.copytree(encoded, tmp_path / "data")
    stopped_after(1, tmp_path / "data", tmp_path / "checkpoints", monkeypatch)
    label = np.load(tmp_path / "data" / "train" / "label.npy", mmap_mode="r+")
    label[5] = 1 - label[5]
    label.flush()
    _, result = trained(tmp_path / "data", tmp_path / "checkpoints")
    assert result.resumed_epoch == 0
    assert "other training rows" in caplog.text


@pytest.mark.parametrize("file", ["model.safetensors", "optimizers.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_not_used(encoded, tmp_path, monkeypatch, caplog, file):
    stopped_after(1, encoded, tmp_path, monkeypatch)
    path = tmp_path / "epoch-0001" / file
    path.write_bytes(path.read_bytes()[:-20])
    model, result = trained(encoded, tmp_path)
    assert result.resumed_epoch == 0
    assert "is not used" in caplog.text
    assert equal(model, trained(encoded, tmp_path / "other")[0])


def test_a_checkpoint_holds_plain_formats_only(encoded, tmp_path, monkeypatch):
    stopped_after(2, encoded, tmp_path, monkeypatch, epochs=3)
    files = {path.name for path in (tmp_path / "epoch-0002").iterdir()}
    assert files == {"model.safetensors", "optimizers.safetensors", "best.safetensors", "state.json"}
    assert len(json.loads((tmp_path / "epoch-0002" / "state.json").read_text())["history"]) == 2


def test_a_checkpoint_that_does_not_fit_on_the_disk_says_so(encoded, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DataError, match=r"The disk is full: a training checkpoint needs [\d,]+ bytes in"):
        trained(encoded, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_refused(encoded):
    with pytest.raises(ConfigurationError, match="device 'nonsense' cannot be used here"):
        predict(star(), EncodedSplit(encoded, "test"), device="nonsense")
