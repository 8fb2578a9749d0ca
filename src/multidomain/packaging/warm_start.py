"""A training that starts from the weights of an earlier one, whatever values and domains were added since."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from ..encoder import Encoder
    from ..models.base import MultiDomainModel
    from ..tensors import EncodedSplit
    from ..training.growth import Growth
    from ..window import Window

logger = logging.getLogger(__name__)
COMPARED = 4096  # rows of the validation split whose scores must not have changed
TOLERANCE = 1e-6  # of a score
_LIMIT = "max_domain_weight_gib"  # of memory: no part of a model


@dataclass(frozen=True, kw_only=True)
class Start:
    """What an earlier training left.

    Attributes:
        source: where it was found, for messages.
        architecture, config: of the model.
        encoder: that its ids are of.
        weights: its state in the form that is trained.
        digest: of those weights.
        offset: of its logits.
    """

    source: str
    architecture: str
    config: Mapping[str, Any]
    encoder: Encoder
    weights: Mapping[str, Tensor]
    digest: str
    offset: float = 0.0


def find(key: str, architecture: str, wanted: str | int, window: Window | None = None) -> Start | None:
    """The model to start from; None where ``previous`` finds none.

    Args:
        key: ``<dataset>/<variant>``.
        architecture: of the model that is to be trained.
        wanted: the folder of a package, or of its ``artifacts``; or a version or alias of the registered model; or
            ``previous``, see :func:`multidomain.packaging.days.previous`.
        window: the days of the run, which ``previous`` needs.

    Raises:
        ConfigurationError: there is no such model, or it holds no weights in the form that is trained.
    """
    if Path(str(wanted)).is_dir():
        return read(Path(str(wanted)))
    import mlflow

    from . import days, registry

    if wanted == days.PREVIOUS:
        before = days.previous(key, architecture, window)
        if before is None:
            logger.info("warm_start: no version of %s knows earlier days only; training starts anew.", architecture)
            return None
        name, version = before
    else:
        name, version = registry.find(key, architecture, wanted)
    place = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}")
    return read(Path(place), source=f"{name} version {version}")


def read(folder: Path, source: str | None = None) -> Start:
    """A package: its encoder, and ``training``, or ``model`` where what is served is what was trained.

    Raises:
        ConfigurationError: a part is missing, or there are only weights folded for serving.
    """
    from safetensors.torch import load_file

    from ..encoder import Encoder

    source = source or str(folder)
    parts = folder / "artifacts" if (folder / "artifacts").is_dir() else folder
    model = next((parts / name for name in ("training", "model") if (parts / name / "model.json").is_file()), None)
    if model is None or not (parts / "encoder" / "encoder.json").is_file():
        raise ConfigurationError(
            f"warm_start: {source} is no packaged model: it needs the folders 'model' and 'encoder'. Name a version or "
            "an alias of the registered model, such as champion, or the folder that package.json gives as 'path'."
        )
    about = json.loads((model / "model.json").read_text(encoding="utf-8"))
    if about.get("serving"):
        raise ConfigurationError(
            f"warm_start: {source} holds its weights only in the form that is served, folded from those that are "
            "trained. Train and package the model once more with this version, which keeps both."
        )
    weights = model / "weights.safetensors"
    return Start(
        source=source,
        architecture=about["architecture"],
        config=about["config"],
        encoder=Encoder.load(parts / "encoder"),
        weights=load_file(weights),
        digest=hashlib.sha256(weights.read_bytes()).hexdigest(),
        offset=about.get("logit_offset", 0.0),
    )


def apply(
    start: Start,
    network: MultiDomainModel,
    encoder: Encoder,
    rows: EncodedSplit,
    *,
    architecture: str,
    config: Mapping[str, Any],
) -> None:
    """Give a model that was just built the weights of an earlier one, and see that it scores as that one did.

    Args:
        start: the earlier one.
        network: built for ``encoder.inputs``; changed in place.
        encoder: that the rows were encoded with.
        rows: of which the first 4,096 are scored by both models.
        architecture, config: of the network.

    Raises:
        ConfigurationError: the earlier model is of another kind or has other inputs; the message names what differs.
        DataError: the scores are not the same.
    """
    from ..training.growth import Growth, grow

    check_same_model(start, architecture, config)
    growth = Growth.between(start.encoder, encoder)
    network.logit_offset = start.offset
    network.load_state_dict(grow(start.weights, network, growth, architecture, config))
    logger.info("Training starts from %s.\n%s", start.source, growth.describe())
    difference = _largest_difference(start, network, growth, rows)
    if not difference <= TOLERANCE:
        raise DataError(
            f"warm_start: the scores of {min(len(rows), COMPARED):,} validation rows differ by up to {difference:g} "
            f"from those of {start.source} before the first step. Where an architecture mixes the networks of all "
            "domains, no domain may be left out; else train from the beginning (warm_start=null)."
        )
    logger.info("The scores of the first %s validation rows are unchanged.", f"{min(len(rows), COMPARED):,}")


def check_same_model(start: Start, architecture: str, config: Mapping[str, Any]) -> None:
    """Refuse a start of another architecture, or built with other options.

    Raises:
        ConfigurationError: the message names what differs.
    """
    from ..models import options

    if start.architecture != architecture:
        raise ConfigurationError(
            f"warm_start: {start.source} is the architecture '{start.architecture}', not '{architecture}'. Start from "
            f"a model of '{architecture}', or run train_{start.architecture}."
        )
    then, now = (json.loads(json.dumps({**options(architecture), **one})) for one in (start.config, config))
    differing = [
        f"{key}: {then.get(key)!r} then, {now.get(key)!r} now"
        for key in {**then, **now}
        if key != _LIMIT and then.get(key) != now.get(key)
    ]
    if differing:
        raise ConfigurationError(
            f"warm_start: {start.source} was built with other options ({'; '.join(differing)}). Use the same under "
            f"{architecture}.model, or train from the beginning (warm_start=null)."
        )


def _largest_difference(start: Start, network: MultiDomainModel, growth: Growth, rows: EncodedSplit) -> float:
    """Between the probabilities that the two models give the same rows."""
    import torch

    from ..models import build

    torch_state = torch.get_rng_state()
    before = build(start.architecture, growth.old, **start.config).eval()
    torch.set_rng_state(torch_state)
    before.load_state_dict(dict(start.weights))
    before.logit_offset = start.offset
    batch, training = rows.batch(slice(0, COMPARED)), network.training
    with torch.inference_mode():
        then = torch.sigmoid(before(growth.translated(batch)).double())
        now = torch.sigmoid(network.eval()(batch).double())
    network.train(training)
    return float((then - now).abs().max()) if len(batch) else 0.0
