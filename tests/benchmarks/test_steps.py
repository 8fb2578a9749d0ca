"""A training step in parts, between two checkouts, beside older figures; and where its time goes."""

import shutil

import pytest

from benchmarks import compiled, measure, profiled, steps
from benchmarks.drawn import MOVIELENS, Draw
from benchmarks.training_step import PARTS, TrainingStep, configured


def figures(ms, runs):
    return {"ms": ms, "runs": runs, "rows": 2000, "rows_per_second": 2000 / ms * 1000, "embedding": 10, "rest": 20}


def test_two_checkouts_are_compared_round_by_round(head):
    models = {"star": {"here": figures(30.0, [20.0, 30.0, 90.0]), "against": figures(40.0, [40.0, 40.0, 45.0])}}
    lines = steps.markdown({"head": head, "models": models, "against": "old"})
    assert lines[-1] == "| star | 30.00 | 2,000 | 66,667 | 10 | 20 | 40.00 | 0.75 (0.50–2.00) |"  # of 0.5, 0.75 and 2


def test_older_figures_stand_beside_those_of_now(head):
    old = {"head": {**head, "revision": "abc"}, "models": {"star": {"here": figures(40.0, [40.0])}}}
    models = {"star": {"here": figures(30.0, [30.0])}, "fresh": {"here": figures(1.0, [1.0])}}
    lines = steps.markdown({"head": head, "models": models}, old)
    assert "ms at abc" in "".join(lines)
    assert lines[-2].endswith("| 40.00 | 0.75 |")
    assert lines[-1].endswith("|  | new |")


def test_every_model_has_a_configuration_that_a_step_can_be_made_of():
    from multidomain.models import architectures

    for name in architectures():
        _, training = configured(measure.ROOT, name)
        assert training["batch_size"] == 2000
        assert "epochs" not in training  # of the environment, not of the model


def test_the_steps_of_this_checkout_are_measured_beside_those_of_another(quick):
    content, text = quick("steps", "--models", "dnn", "--against", str(measure.ROOT))
    here, there = content["models"]["dnn"]["here"], content["models"]["dnn"]["against"]
    assert here["rows"] == steps.QUICK_ROWS
    assert here["rest"] == there["rest"] > 0
    assert min(*here["runs"], *there["runs"]) > 0
    assert "| dnn |" in text


def test_the_steps_in_another_precision_are_measured_beside_those_in_float32(quick):
    content, text = quick("steps", "--models", "dnn", "--precision", "bfloat16")
    assert content["against"] == "float32"
    assert set(content["models"]["dnn"]) == {"here", "against"}
    assert "| ms with float32 |" in text


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_is_measured_beside_the_step_as_it_is(quick):
    content, text = quick("compiled", "--models", "dcn")
    assert {len(content["models"]["dcn"][how]) for how in compiled.HOWS} == {1}
    assert "| dcn |" in text


def test_a_model_that_cannot_be_compiled_says_why(head):
    lines = compiled.markdown({"head": head, "models": {"hmdn": {"why": "Unsupported"}}})
    assert lines[-1] == "| hmdn |  |  | cannot be compiled: Unsupported |  |"


def test_an_epoch_in_both_precisions_tells_seconds_and_auc(quick):
    content, text = quick("precision", "--models", "dnn")
    (line,) = content["models"]["dnn"]
    assert line["float32"]["auc"] != line["bfloat16"]["auc"]
    assert abs(line["float32"]["auc"] - line["bfloat16"]["auc"]) < 0.1
    assert "| dnn |" in text


def test_another_package_than_that_of_the_checkout_is_refused(tmp_path, quick):
    (tmp_path / "src").mkdir()
    with pytest.raises(SystemExit, match="has ended"):
        quick("steps", "--models", "dnn", "--against", str(tmp_path))


@pytest.fixture(scope="module")
def step():
    batches = Draw(schema=MOVIELENS).batches(64, 2)
    return TrainingStep("dnn", MOVIELENS, batches, model={"hidden": [8, 4]}), batches


def test_a_step_is_told_apart_into_its_parts(step):
    measured = profiled.parts(*step, 3, "wall")
    assert tuple(measured) == PARTS
    assert all(len(values) == 3 and min(values) > 0 for values in measured.values())


def test_the_profile_gives_forward_and_backward_to_the_modules_that_are_theirs(step):
    found, operators = profiled.by_module(*step, 2)
    assert "embedding_bag" in operators
    for name in ("inputs.embedding", "mlp.layers.0"):
        assert found.forward[name] > 0
        assert found.backward[name] > 0
    assert "mlp.dropout" not in found.backward or found.backward["mlp.dropout"] < found.backward["mlp.layers.0"]
    assert found.backward[profiled.OTHERS] < 0.5 * sum(found.backward.values())
    assert found.operators > 100
    lines = profiled.text(found, profiled.parts(*step, 3, "wall"), 0.1, operators, 64)
    assert any(line.strip().startswith("inputs.embedding") and line.endswith("%") for line in lines)


def test_the_marks_are_gone_after_the_profile(step):
    model = step[0].model
    with profiled.marked(model):
        assert model._forward_hooks
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
