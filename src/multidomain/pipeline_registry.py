"""Every pipeline by name. ``train_<architecture>`` exists for each file in ``models/``, by file name alone."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from .models import architectures
from .pipelines import (
    check_freshness,
    check_parity,
    compare,
    delete,
    drift,
    encode,
    evaluate,
    features,
    fetch,
    ingest,
    materialize,
    package,
    partition,
    predict,
    reproduce,
    stream,
    train,
    tune,
    validate,
)


def register_pipelines() -> dict[str, Pipeline]:
    """``fetch`` brings the raw files that have an address; ``prepare`` is everything up to the tensors and their drift.

    ``train_<architecture>`` is prepare, train, evaluate and package; ``compare`` is prepare and a leaderboard of
    several models; ``reproduce`` is prepare and one table of a paper; ``tune_<architecture>`` is prepare and a search
    for its best configuration. ``daily_<architecture>`` is train_<architecture> and materialize, to be run for one day
    after the other. ``stream_<architecture>`` follows a stream, from what was prepared or packaged before.
    ``materialize`` loads the online store, ``check_parity`` compares it with the training frame, ``check_freshness``
    with the view tables. ``delete`` takes the files of one variant away.
    """
    stages = {
        "ingest": ingest.create_pipeline(),
        "validate": validate.create_pipeline(),
        "partition": partition.create_pipeline(),
        "features": features.create_pipeline(),
        "encode": encode.create_pipeline(),
        "drift": drift.create_pipeline(),
    }
    prepare = sum(stages.values(), Pipeline([]))
    online = materialize.create_pipeline()
    trained = {f"train_{name}": prepare + _model(name) for name in architectures()}
    return {
        "__default__": trained["train_star"],
        **stages,
        "fetch": fetch.create_pipeline(),
        "prepare": prepare,
        **trained,
        "materialize": online,
        "check_freshness": check_freshness.create_pipeline(),
        "check_parity": check_parity.create_pipeline(),
        "predict": predict.create_pipeline(),
        "delete": delete.create_pipeline(),
        "compare": prepare + compare.create_pipeline(),
        "reproduce": prepare + reproduce.create_pipeline(),
        **{f"daily_{name}": prepare + online + _model(name) for name in architectures()},
        **{f"stream_{name}": _namespaced(name, stream.create_pipeline(name)) for name in architectures()},
        **{f"tune_{name}": prepare + _namespaced(name, tune.create_pipeline(name)) for name in architectures()},
    }


def _model(architecture: str) -> Pipeline:
    """Train, evaluate and package one architecture: one template, its datasets and parameters under its name."""
    template = train.create_pipeline(architecture) + evaluate.create_pipeline() + package.create_pipeline(architecture)
    return _namespaced(architecture, template)


def _namespaced(architecture: str, template: Pipeline) -> Pipeline:
    return Pipeline(
        template,
        namespace=architecture,
        prefix_datasets_with_namespace=True,
        inputs=SHARED & template.inputs(),
        parameters=OF_ALL & template.inputs(),
        tags=architecture,
    )


OF_ALL = {
    *("params:seed", "params:device", "params:warm_start", "params:package"),
    *("params:calibration", "params:reference", "params:session_gap_minutes", "params:gate", "params:tune"),
    *("params:stream", "params:window"),
}
SHARED = {"variant", "schema", "encoder", "encoded", "domain_table", "training_frame"}
