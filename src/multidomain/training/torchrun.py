"""Whether torchrun has started this process beside others, told without PyTorch: a start of ``kedro`` asks, too."""

from __future__ import annotations

import multiprocessing
import os


def process() -> int | None:
    """Which process of torchrun this is, from 0; None: of none, the only one, or a helper of such a process."""
    own = "RANK" in os.environ and multiprocessing.parent_process() is None
    return int(os.environ["RANK"]) if own and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
