"""Write one vendor's raw files."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from pathlib import Path

from . import __path__ as here


def main() -> None:
    """``python -m benchmarks.raw_files <vendor> <folder> --rows N``."""
    vendors = sorted({module.name for module in pkgutil.iter_modules(here)} - {"lines", "__main__"})
    parser = argparse.ArgumentParser(prog="python -m benchmarks.raw_files", description=__doc__)
    parser.add_argument("vendor", choices=vendors)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=2021)
    parser.add_argument("--layout", help="of a vendor with several, such as 20m of grouplens")
    given = parser.parse_args()
    more = {"layout": given.layout} if given.layout else {}
    module = importlib.import_module(f"benchmarks.raw_files.{given.vendor}")
    for name, file in module.write(given.folder, rows=given.rows, seed=given.seed, **more).items():
        print(f"{given.folder / name}: {file.lines:,} lines")


if __name__ == "__main__":
    main()
