"""Every command that README and CONTRIBUTING show names pipelines, parameters, targets and programs that exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from functools import cache
from typing import Any

import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.cli.utils import _split_params
from places import PROJECT

from multidomain import schema
from multidomain.comparison.entries import Comparison, check_options
from multidomain.hooks import CHOICES, _check_parameters
from multidomain.pipeline_registry import register_pipelines
from multidomain.settings import CONFIG_LOADER_ARGS

BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = r"(?:^|\s)(?:kedro run|make|python -m) "


def commands() -> list[str]:
    """Lines of the code blocks, which may go on after a backslash, and commands within sentences; without comments."""
    found = []
    for page in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md"):
        text = (PROJECT / page).read_text("utf-8")
        for block in re.findall(BLOCK, text):
            found += [line for line in block.replace("\\\n", " ").splitlines() if re.search(COMMAND, line)]
        found += [line for line in re.findall(r"`([^`\n]+)`", re.sub(BLOCK, "", text)) if re.match(COMMAND, line)]
    return sorted({" ".join(shlex.split(line, comments=True)) for line in found})


@cache
def declared(environment: str) -> dict[str, Any]:
    loader = OmegaConfigLoader(str(PROJECT / "conf"), env=environment, **CONFIG_LOADER_ARGS)
    return dict(loader["parameters"])


@cache
def pipelines() -> dict[str, Any]:
    return register_pipelines()


@pytest.mark.parametrize("command", [line for line in commands() if "kedro run" in line])
def test_a_kedro_command_names_a_pipeline_and_parameters_there_are(command):
    given = dict(re.findall(r"--(env|pipelines?|params)[= ](.*?)(?= --|$)", command))
    for name in (given.get("pipeline") or given.get("pipelines") or "__default__").split(","):
        assert name.replace("<architecture>", "star").replace("<name>", "star") in pipelines(), name
    options = declared(given.get("env", "base"))
    if "<" in given.get("params", ""):
        return
    parameters = _split_params(None, None, given.get("params", ""))
    _check_parameters(parameters, options)
    for section, changed in parameters.items():
        if isinstance(changed, dict) and "training" in options[section] and section != "compare":
            merged = {
                part: {**options[section].get(part, {}), **changed.get(part, {})} for part in ("model", "training")
            }
            check_options(section, merged["model"], merged["training"])
    if "compare" in parameters:
        Comparison.of({**options, "compare": {**options["compare"], **parameters["compare"]}})
    if parameters.get("dataset") != "clicks":  # the example of a log of one's own
        choice = {**options, **parameters}
        schema.load(str(choice["dataset"])).variant(**{name: choice[name] for name in CHOICES})


@pytest.mark.parametrize("command", [line for line in commands() if re.search(r"(^|\s)make( |$)", line)])
def test_a_make_command_names_a_target_there_is(command):
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text("utf-8"), re.MULTILINE)
    asked = [
        word for word in re.split(" (?:ARGS|PIP_FLAGS)=", command.split("make", 1)[1])[0].split() if "=" not in word
    ]
    assert set(asked) <= set(targets), asked


@pytest.mark.parametrize("command", [line for line in commands() if "python -m " in line])
def test_a_program_of_the_project_is_there(command):
    name = re.findall(r"python -m (\S+)", command)[0]
    assert "<" in name or importlib.util.find_spec(name), name


def test_there_are_commands_of_every_kind():
    kinds = ("kedro run", "make ", "python -m ")
    assert all(sum(kind in line for line in commands()) >= least for kind, least in zip(kinds, (30, 5, 1), strict=True))
