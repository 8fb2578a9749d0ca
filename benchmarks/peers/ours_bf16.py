"""This project as in :mod:`.ours`, with products in bf16, which peers do not offer on a processor: said apart."""

from __future__ import annotations

from pathlib import Path

from .ours import PACKAGE as PACKAGE
from .ours import Training
from .ours import load as load
from .settings import Setting

LACKS: dict[str, str] = {}


def build(setting: Setting, folder: Path, scratch: Path) -> Training:
    """The training of a setting."""
    return Training(setting, folder, scratch, precision="bfloat16")
