"""What belongs together is there together: a model and its configuration, a schema and its source."""

from __future__ import annotations

import pytest
import yaml
from places import PROJECT

from multidomain import schema, sources
from multidomain.inputs import InputSchema
from multidomain.models import architectures, build
from multidomain.training.config import TrainingConfig

MODELS = PROJECT / "conf/base/parameters/models"
DATASETS = PROJECT / "conf/base/datasets"


def test_every_architecture_has_a_configuration_of_its_name_and_the_other_way_round():
    assert architectures() == sorted(path.stem for path in MODELS.glob("*.yml"))


@pytest.mark.parametrize("name", architectures())
def test_the_configuration_of_an_architecture_builds_it(name):
    text = (MODELS / f"{name}.yml").read_text().replace("${globals:epochs}", "1")
    (heading, section), *others = yaml.safe_load(text).items()
    assert (heading, others) == (name, [])
    assert set(section) == {"model", "training"}
    inputs = InputSchema(
        domains=2, vocabularies={"item": 5}, categorical=("item",), history={"clicked": "item"}, history_length=3
    )
    build(name, inputs, **section["model"])
    TrainingConfig(**section["training"])


@pytest.mark.parametrize("path", sorted(DATASETS.glob("*.yml")), ids=lambda path: path.stem)
def test_every_schema_names_a_source_that_exists_and_where_its_files_come_from(path):
    parsed = schema.parse(path)
    assert parsed.source in sources.names()
    assert parsed.licence
    assert parsed.citation
    assert all(file.fetch or file.address for file in parsed.files.values())
