"""The architectures: one file each, here or in ``baselines``; its name is that of the file."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, unknown_key
from ..inputs import InputSchema

if TYPE_CHECKING:  # the names of the architectures are asked for at every start: PyTorch is loaded when one is made
    from torch import nn

    from .base import MultiDomainModel

__all__ = ["architectures", "build", "build_serving", "options"]

_GIB = 2**30


def architectures() -> list[str]:
    """Names of all architectures and baselines, in alphabetical order."""
    return sorted(_modules())


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
    _refuse_oversize(name, model_class, schema, config, max_domain_weight_gib)
    return model_class(schema, **config)


def build_serving(name: str, schema: InputSchema, **config: Any) -> nn.Module:
    """An empty :meth:`MultiDomainModel.serving_form`, to be filled by ``load_state_dict``.

    No training weights are made on the way: neither their memory nor their values are needed.
    """
    import torch

    model_class = _checked_class(name, config)
    with torch.device("meta"):
        model = model_class(schema, **config).eval().serving_form()
    return model.to_empty(device="cpu").eval()


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
    parameters = inspect.signature(model_class).parameters
    return {key: value for key, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}


def _refuse_oversize(
    name: str, model_class: type[MultiDomainModel], schema: InputSchema, config: dict[str, Any], limit: float
) -> None:
    import torch

    with torch.device("meta"):  # sizes without memory
        model = model_class(schema, **config)
    size = sum(
        tensor.numel() * tensor.element_size()
        for key, tensor in model.named_parameters()
        if key.rpartition(".")[2].startswith("domain_")
    )
    if size > limit * _GIB:
        each = size / schema.domains / 2**20
        raise ConfigurationError(
            f"The domain weights of '{name}' would take {size / _GIB:.1f} GiB ({schema.domains:,} domains of "
            f"{each:.2f} MiB; training needs four times that), more than max_domain_weight_gib = {limit:g}. Keep only "
            f"the {max(int(limit * 2**10 / each), 1):,} largest domains (`top` in the data set's domain), narrow "
            f"`hidden`, or raise the limit."
        )
