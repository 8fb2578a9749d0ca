"""The code that travels with a model: this package's own modules, under a name that no other version has."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENTRIES = (Path("packaging/scorer.py"), Path("packaging/onnx_scorer.py"))


def needed(root: Path = ROOT, entries: Sequence[Path] = ENTRIES) -> list[Path]:
    """The modules below ``root`` that scoring needs: the scorers, all models and layers, and what they import of it."""
    found: set[Path] = set()
    waiting = [
        *(entry for entry in entries if (root / entry).is_file()),
        *(path.relative_to(root) for name in ("models", "layers") for path in (root / name).rglob("*.py")),
    ]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imported(root, module)
    folders = {parent for module in found for parent in module.parents} - {Path()}
    return sorted(found | {folder / "__init__.py" for folder in folders if (root / folder / "__init__.py").is_file()})


def copy(target: Path, root: Path = ROOT) -> None:
    """Copy the needed modules into ``target``, a package of its own."""
    target.mkdir(parents=True)
    (target / "__init__.py").write_text('"""The code of one packaged model."""\n', encoding="utf-8")
    for module in needed(root):
        (target / module).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / module, target / module)


def _imported(root: Path, module: Path) -> list[Path]:
    """The modules of this package that one of them names in relative imports, inside functions too."""
    found = []
    for statement in ast.walk(ast.parse((root / module).read_text(encoding="utf-8"))):
        if isinstance(statement, ast.ImportFrom) and statement.level:
            start = module.parents[statement.level - 1]
            base = start.joinpath(*(statement.module or "").split(".")) if statement.module else start
            for name in (base, *(base / alias.name for alias in statement.names)):
                found += [path for path in (name.with_suffix(".py"), name / "__init__.py") if (root / path).is_file()]
    return [path for path in found if path != Path("__init__.py")]
