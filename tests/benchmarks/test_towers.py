"""The STAR that computes every domain for every row is the same network as ours: only then is the comparison fair."""

import pytest
import torch

from benchmarks.drawn import Draw
from benchmarks.towers import AllTowersStar, DenseStep
from multidomain.inputs import InputSchema
from multidomain.models import build

SCHEMA = InputSchema(domains=4, vocabularies={"user": 30, "item": 20}, categorical=("user", "item"))
WIDTHS = [8, 4]


def both(normalization: str) -> tuple[torch.nn.Module, AllTowersStar]:
    torch.manual_seed(3)
    ours = build("star", SCHEMA, hidden=WIDTHS, normalization=normalization, auxiliary=False, unknown_rate=0.0)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # every domain its own
    towers = AllTowersStar(SCHEMA, hidden=WIDTHS, normalization=normalization)
    towers.take(ours)
    towers.inputs.embedding.unknown_rate = 0.0
    return ours, towers


@pytest.mark.parametrize("normalization", ["partitioned", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_all_towers_score_as_ours_with_the_same_weights(normalization: str, training: bool):
    ours, towers = both(normalization)
    for batch in Draw(schema=SCHEMA).batches(64, 2):
        torch.testing.assert_close(towers.train(training)(batch), ours.train(training)(batch), rtol=1e-5, atol=1e-6)


def test_both_learn_the_same_from_a_batch():
    ours, towers = both("none")
    batch = Draw(schema=SCHEMA).batches(64, 1)[0]
    for model in (ours, towers):
        torch.nn.functional.binary_cross_entropy_with_logits(model(batch), batch.label).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    for number in range(len(WIDTHS) + 1):
        for name in ("weight", "bias", "domain_weight", "domain_bias"):
            theirs = towers.fcn[f"fcn/layers/{number}/{name}"].grad
            own = gradients[f"fcn.layers.{number}.{name}"]
            torch.testing.assert_close(theirs, own, rtol=1e-4, atol=1e-7)
    table = gradients["inputs.embedding.table.weight"].to_dense()
    torch.testing.assert_close(towers.inputs.embedding.table.weight.grad, table, rtol=1e-4, atol=1e-7)


def test_a_dense_step_learns():
    step = DenseStep(AllTowersStar(SCHEMA, hidden=WIDTHS), Draw(schema=SCHEMA).batches(64, 1), learning_rate=0.01)
    losses = [float(step()) for _ in range(20)]
    assert losses[-1] < losses[0]
