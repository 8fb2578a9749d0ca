"""What a package holds: encoder and network as they are served, the network as it was trained, an ONNX file, a card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..calibration import Calibration
from . import bundle

if TYPE_CHECKING:
    from ..models.base import MultiDomainModel
    from .package import Training

CARD = "MODEL_CARD.md"


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What was written for one package.

    Attributes:
        artifacts: name -> folder or file.
        code: the package's own code, a folder named as nobody else's is.
        folded: whether the weights are those of the network's serving form.
    """

    artifacts: dict[str, Path]
    code: Path
    folded: bool

    @property
    def onnx(self) -> bool:
        """Whether there is an ONNX file."""
        return "onnx" in self.artifacts


def write(
    scratch: Path, *, encoder: Path, model: Path, card: str, calibration: Mapping[str, Any], onnx: bool
) -> Contents:
    """Put everything into an existing, empty folder.

    Args:
        scratch: the folder.
        encoder, model: as encode and train left them.
        card: text of the model card.
        calibration: as :class:`~multidomain.calibration.Calibration` writes it; empty: none.
        onnx: whether the served network is written as an ONNX file, too.

    Raises:
        ConfigurationError: it cannot be; see :func:`~multidomain.packaging.onnx_export.export`.
    """
    from .. import tracking

    artifacts = {"encoder": scratch / "encoder", "model": scratch / "model"}
    shutil.copytree(encoder, artifacts["encoder"])
    folded = serving_form(model, artifacts["model"])
    if calibration:
        Calibration.from_dict(calibration).write(artifacts["model"])
    if folded:  # a later training may start from what was trained
        artifacts["training"] = Path(shutil.copytree(model, scratch / "training"))
    if onnx:
        from ..encoder import Encoder
        from .onnx_export import export

        artifacts["onnx"] = scratch / "onnx"
        export(artifacts["model"], Encoder.load(encoder), artifacts["onnx"])
        if calibration:
            Calibration.from_dict(calibration).write(artifacts["onnx"])
    code = scratch / "code"
    bundle.copy(code / "new")
    own = code / f"multidomain_scorer_{tracking.fingerprint(code, *artifacts.values())}"
    (code / "new").rename(own)
    artifacts["card"] = scratch / CARD
    artifacts["card"].write_text(card, encoding="utf-8")
    return Contents(artifacts=artifacts, code=own, folded=folded)


def write_model(folder: Path, network: MultiDomainModel, architecture: str, config: Mapping[str, Any]) -> None:
    """A trained network as ``weights.safetensors`` and ``model.json`` in an existing folder."""
    from safetensors.torch import save_file

    save_file({k: v.cpu().contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
    inputs = network.schema.to_dict()
    description: dict[str, Any] = {"architecture": architecture, "config": dict(config), "inputs": inputs}
    if network.logit_offset:
        description["logit_offset"] = network.logit_offset
    (folder / "model.json").write_text(json.dumps(description, indent=1), encoding="utf-8")


def card_of(training: Training) -> str:
    """The model card of a training."""
    from .. import tracking
    from ..encoder import Encoder
    from .card import Facts, card
    from .rows import columns

    variant = training.variant
    return card(
        Facts(
            model=tracking.model_name(variant.key, training.architecture),
            architecture=training.architecture,
            dataset=variant.schema.name,
            variant=variant.name,
            label=variant.label.name,
            licence=variant.schema.licence,
            citation=variant.schema.citation,
            rows=training.rows,
            columns={name: str(kind) for name, kind in columns(Encoder.load(training.encoder)).items()},
            metrics=training.metrics,
            data=training.data,
            revision=tracking.git_revision(),
            seed=training.parameters["seed"],
            settings=[
                pair for pair in tracking.flat(training.parameters) if pair[0].startswith(("model.", "training."))
            ],
            negative_rate=training.parameters["training"].get("negative_rate", 1.0),
            calibration=training.calibration.get("kind", ""),
            onnx=training.onnx,
            **({"measured_on": training.measured_on} if training.measured_on else {}),
        )
    )


def serving_form(model: Path, target: Path) -> bool:
    """Copy a model's folder to ``target``, its weights folded for serving where the model can; whether they were."""
    from safetensors.torch import save_file

    from .scorer import restore

    trained = restore(model)
    served = trained.serving_form()
    if served is trained:
        shutil.copytree(model, target)
        return False
    target.mkdir()
    about = json.loads((model / "model.json").read_text(encoding="utf-8"))
    (target / "model.json").write_text(json.dumps({**about, "serving": True}, indent=1), encoding="utf-8")
    weights = {name: tensor.clone().contiguous() for name, tensor in served.state_dict().items()}
    save_file(weights, target / "weights.safetensors")
    return True
