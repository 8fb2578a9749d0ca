"""Raw files as vendors hand them out, of any size, drawn from a simulated log whose truth is known.

They stand in for originals that are too large, or not free, to be at hand: the same names, columns, separators and
kinds of values. ``bad`` lines are put between the good ones, so that a test can say what becomes of each.

    python -m benchmarks.raw_files kuairand data/01_raw/kuairand --rows 1000000
"""

from __future__ import annotations

from .lines import Bad as Bad
from .lines import LineFile as LineFile
from .lines import codes as codes
from .lines import parts as parts
