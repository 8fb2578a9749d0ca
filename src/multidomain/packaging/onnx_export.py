"""A trained network as an ONNX file: encoded tensors in, one logit per row out, any number of rows and domains."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from .onnx_scorer import ABOUT, GRAPH

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..encoder import Encoder
    from ..inputs import InputSchema

NEEDED = ("onnx", "onnxscript", "onnxruntime")
EXAMPLE_ROWS = 5  # of the batch the graph is drawn with; any other number fits it too
BATCH = "batch"


def require() -> None:
    """Raises a ConfigurationError where what makes and scores ONNX files is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"package.onnx: {', '.join(missing)} is not installed. Install it with: pip install 'multidomain[onnx]' "
            "(some 120 MB), or leave package.onnx false."
        )


def export(model: Path, encoder: Encoder, target: Path) -> None:
    """Write ``model.onnx`` and ``onnx.json`` into a new folder ``target``.

    The graph has the inputs that :meth:`Encoder.transform` gives, by their names (``categorical`` (B, F) int32,
    ``numerical`` (B, K) float32, ``domain`` (B,) int32, ``history_<field>`` (B, T), ``bag_<field>`` (B, L) int32), less
    those the network does not read, and the output ``logit`` (B,) float32.

    Args:
        model: the folder of the network as it is served.
        encoder: of the rows it is to score; says how long the lists are.
        target: must not be there.

    Raises:
        ConfigurationError: a package is missing, or the network has a step that no graph can hold.
    """
    require()
    from .scorer import restore

    network = restore(model)
    about: dict[str, Any] = json.loads((model / "model.json").read_text(encoding="utf-8"))
    target.mkdir()
    _write(network, encoder, about["architecture"], target / GRAPH)
    by_domain = has_weights_by_domain(network, len(encoder.domains))
    facts = {"architecture": about["architecture"], "by_domain": by_domain}
    (target / ABOUT).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def has_weights_by_domain(network: nn.Module, domains: int) -> bool:
    """Whether a row meets weights of its own domain alone: scoring one domain at a time saves the others' work then."""
    from ..layers.domain_linear import DomainLinear, StarLinear
    from ..layers.experts import DomainExperts

    kinds = (DomainLinear, StarLinear, DomainExperts)
    found = [module for module in network.modules() if isinstance(module, kinds)]
    sizes = {
        len(one.domain_weight) for one in found if not isinstance(one, DomainExperts)
    }  # AdaptDHM's are of clusters
    return any(isinstance(one, DomainExperts) for one in found) or bool(sizes & {domains, domains + 1})


def names(inputs: InputSchema) -> list[str]:
    """The inputs of the graph, in their order."""
    lists = [f"history_{name}" for name in inputs.history] + [f"bag_{name}" for name in inputs.bags]
    return ["categorical", "numerical", "domain", *lists]


def _write(network: nn.Module, encoder: Encoder, architecture: str, path: Path) -> None:
    import torch

    inputs, given = encoder.inputs, example(encoder)
    rows = {0: torch.export.Dim(BATCH, min=1)}
    shapes = (rows, rows, rows, tuple(rows for _ in given[3]))
    try:
        with torch.no_grad(), _quietly():
            drawn = torch.export.export(_graph(network, inputs), given, dynamic_shapes=shapes, strict=False)
            program = torch.onnx.export(
                drawn, input_names=names(inputs), output_names=["logit"], dynamo=True, verbose=False
            )
            assert program is not None
            program.save(path)
    except Exception as error:
        if isinstance(error, OSError):
            raise
        raise ConfigurationError(
            f"package.onnx: '{architecture}' with these options cannot be written as an ONNX file "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}). Leave package.onnx false: "
            "the package scores with PyTorch all the same."
        ) from error


def example(encoder: Encoder) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """A batch of the right shapes: categorical, numerical, domain, then the histories and bags."""
    import torch

    inputs = encoder.inputs

    def ids(*width: int) -> Tensor:
        return torch.ones((EXAMPLE_ROWS, *width), dtype=torch.int32)

    widths = [inputs.history_length] * len(inputs.history) + [f.length for f in encoder.fields if f.kind == "bag"]
    numerical = torch.zeros(EXAMPLE_ROWS, len(inputs.numerical))
    return ids(len(inputs.categorical)), numerical, ids() * 0, tuple(ids(width) for width in widths)


def _graph(network: nn.Module, inputs: InputSchema) -> nn.Module:
    """The network with tensors in the place of a batch."""
    import torch

    from ..batch import Batch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(
            self, categorical: torch.Tensor, numerical: torch.Tensor, domain: torch.Tensor, lists: Sequence[Any]
        ) -> Any:
            past = len(inputs.history)
            batch = Batch(
                categorical=categorical,
                numerical=numerical,
                history=dict(zip(inputs.history, lists[:past], strict=True)),
                bags=dict(zip(inputs.bags, lists[past:], strict=True)),
                domain=domain,
                label=numerical.new_zeros(domain.shape[0]),
            )
            return self.network(batch)

    return Graph().eval()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter says what it skips, among it what none of this needs."""
    loggers = {logging.getLogger(name): logging.ERROR for name in ("torch.onnx", "torch.__trace")}
    before = {logger: logger.level for logger in loggers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger, level in loggers.items():
                logger.setLevel(level)
            yield
        finally:
            for logger, level in before.items():
                logger.setLevel(level)
