"""The architectures: one file each, here or in ``baselines``; its name is that of the file."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, unknown_key
from ..inputs import InputSchema

if TYPE_CHECKING:  # the names of the architectures are asked for at every start: PyTorch is loaded when one is made
    from torch import nn

    from .base import MultiDomainModel

__all__ = ["architectures", "build", "build_serving", "options", "shapes", "source"]

_GIB = 2**30


def architectures() -> list[str]:
    """Names of all architectures and baselines, in alphabetical order."""
    return sorted(_modules())


def source(name: str) -> Path:
    """The file an architecture is written in."""
    return Path(inspect.getfile(_model_class(name)))


def options(name: str) -> dict[str, Any]:
    """The configuration keys of an architecture with their defaults."""
    return {key: parameter.default for key, parameter in _keywords(_model_class(name)).items()}


def build(name: str, schema: InputSchema, *, max_domain_weight_gib: float = 2.0, **config: Any) -> MultiDomainModel:
    """Make the model of that name.

    Args:
        name: one of :func:`architectures`.
        schema: the inputs.
        max_domain_weight_gib: the memory that weights kept per domain may take, before gradients and optimizer.
        config: the options of the architecture; see :func:`options`.

    Raises:
        ConfigurationError: an unknown name, an unknown or impossible option, or domain weights beyond that memory.
    """
    model_class = _checked_class(name, config)
    sketch = _sketch(model_class, schema, config)
    _refuse_oversize(name, sketch, max_domain_weight_gib)
    _refuse_without_effect(name, sketch, config)
    return model_class(schema, **config)


def build_serving(name: str, schema: InputSchema, **config: Any) -> nn.Module:
    """An empty :meth:`MultiDomainModel.serving_form`, to be filled by ``load_state_dict``.

    No training weights are made on the way: neither their memory nor their values are needed.
    """
    import torch

    model = _sketch(_checked_class(name, config), schema, config)
    with torch.device("meta"):
        return model.eval().serving_form().to_empty(device="cpu").eval()


def shapes(name: str, schema: InputSchema, **config: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in the state of a model, by name; nothing is made."""
    state = _sketch(_checked_class(name, config), schema, config).state_dict()
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _sketch(model_class: type[MultiDomainModel], schema: InputSchema, config: dict[str, Any]) -> MultiDomainModel:
    """The model with its sizes alone: no memory, no random numbers."""
    import torch

    with torch.device("meta"):
        return model_class(schema, **config)


def _checked_class(name: str, config: dict[str, Any]) -> type[MultiDomainModel]:
    model_class = _model_class(name)
    allowed = _keywords(model_class)
    for key in config:
        if key not in allowed:
            raise ConfigurationError(f"Option of the model '{name}': {unknown_key(key, allowed)}")
    return model_class


@functools.cache
def _modules() -> dict[str, str]:
    """Architecture -> module, for every file here and in ``baselines`` whose name does not start with '_'."""
    found = {}
    for package in (__name__, f"{__name__}.baselines"):
        path = importlib.import_module(package).__path__
        for module in pkgutil.iter_modules(path):
            if not module.ispkg and not module.name.startswith("_") and module.name != "base":
                found[module.name] = f"{package}.{module.name}"
    return found


def _model_class(name: str) -> type[MultiDomainModel]:
    modules = _modules()
    if name not in modules:
        raise ConfigurationError(f"Architecture {unknown_key(name, modules)}")
    from .base import MultiDomainModel

    module = importlib.import_module(modules[name])
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, MultiDomainModel) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ConfigurationError(
            f"{module.__file__} must define exactly one MultiDomainModel; it defines {len(classes)}"
        )
    return classes[0]


def _keywords(model_class: type[MultiDomainModel]) -> dict[str, inspect.Parameter]:
    """The keywords of a class and, behind its ``**inputs``, those of the base class it passes them on to.

    A class that names one of these itself, for another default, has its own.
    """
    from .base import InputOptions, MultiDomainModel

    own, base = (inspect.signature(one).parameters for one in (model_class, MultiDomainModel))
    passed = {key: base[key] for key in InputOptions.__annotations__}
    named = {key: value for key, value in own.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}
    return named | {key: value for key, value in passed.items() if key not in named}


def _refuse_oversize(name: str, sketch: MultiDomainModel, limit: float) -> None:
    size = sum(
        tensor.numel() * tensor.element_size()
        for key, tensor in sketch.named_parameters()
        if key.rpartition(".")[2].startswith("domain_")
    )
    if size > limit * _GIB:
        domains = sketch.schema.domains
        each = size / domains / 2**20
        raise ConfigurationError(
            f"The domain weights of '{name}' would take {size / _GIB:.1f} GiB ({domains:,} domains of "
            f"{each:.2f} MiB; training needs four times that), more than max_domain_weight_gib = {limit:g}. Keep only "
            f"the {max(int(limit * 2**10 / each), 1):,} largest domains (`top` in the data set's domain), narrow "
            f"`hidden`, or raise the limit."
        )


def _refuse_without_effect(name: str, sketch: MultiDomainModel, config: dict[str, Any]) -> None:
    """A distribution representation that nothing of the model reads would be chosen in vain."""
    chosen = config.get("distribution")
    if chosen is None or sketch.inputs.distribution is not None:
        return
    readers = [other for other in architectures() if _reads_distribution(other, sketch.schema)]
    models = f" and by {', '.join(readers)}" if readers else ""
    raise ConfigurationError(
        f"distribution: '{chosen}' is read by nothing in this configuration of '{name}'. It is read by every "
        f"auxiliary network (auxiliary: true), by the histories ads_din, ads_mha and ads_can{models}."
    )


def _reads_distribution(name: str, schema: InputSchema) -> bool:
    try:
        return _sketch(_model_class(name), schema, {"auxiliary": False}).inputs.distribution is not None
    except ConfigurationError:  # not with these inputs
        return False
