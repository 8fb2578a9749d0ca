from __future__ import annotations

from pathlib import Path

import pytest
from learnable import write_encoded


@pytest.fixture(scope="session")
def encoded(tmp_path_factory) -> Path:
    return write_encoded(tmp_path_factory.mktemp("data") / "encoded", {"train": 3000, "validation": 800, "test": 700})
