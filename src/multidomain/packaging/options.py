"""The section ``package`` of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError, unknown_key


@dataclass(frozen=True, kw_only=True)
class PackageOptions:
    """What goes into a package beside encoder, network and card.

    Attributes:
        onnx: the network as an ONNX file, scored by onnxruntime.
    """

    onnx: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> PackageOptions:
        """The options of a configuration section.

        Raises:
            ConfigurationError: an unknown option, a value that is not allowed, or what it needs is not installed.
        """
        for key in given or {}:
            if key not in cls.__annotations__:
                raise ConfigurationError(f"package: {unknown_key(key, cls.__annotations__)}")
        options = cls(**(given or {}))
        if not isinstance(options.onnx, bool):
            raise ConfigurationError(f"package.onnx must be true or false, got {options.onnx!r}.")
        if options.onnx:
            from .onnx_export import require

            require()
        return options
