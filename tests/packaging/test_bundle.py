from __future__ import annotations

import ast
import sys
from pathlib import Path

from multidomain.packaging import bundle

MAY_IMPORT = {"torch", "numpy", "pandas", "pyarrow", "safetensors", "click", "typing_extensions", "onnxruntime"}


def test_a_bundle_holds_the_scorer_all_models_and_what_they_import_and_no_more() -> None:
    modules = {path.as_posix() for path in bundle.needed()}
    assert {
        "packaging/scorer.py",
        "packaging/onnx_scorer.py",
        "encoder.py",
        "inputs.py",
        "batch.py",
        "models/star.py",
        "layers/__init__.py",
    } <= modules
    assert not any(name.startswith(("pipelines", "training", "io", "features", "schema")) for name in modules)
    assert "packaging/package.py" not in modules


def test_bundled_modules_import_only_what_a_package_requires() -> None:
    for module in bundle.needed():
        for statement in ast.walk(ast.parse((bundle.ROOT / module).read_text("utf-8"))):
            names = []
            if isinstance(statement, ast.Import):
                names = [alias.name for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom) and not statement.level:
                names = [statement.module or ""]
            foreign = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - MAY_IMPORT
            assert not foreign, f"{module} imports {foreign}"


def test_imports_inside_functions_and_of_packages_are_followed(tmp_path: Path) -> None:
    files = {
        "packaging/__init__.py": "",
        "packaging/scorer.py": "def f():\n    from ..a import x\n",
        "a/__init__.py": "from . import b\n",
        "a/b.py": "from ..c import y\nimport os\n",
        "c.py": "",
        "unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    wanted = ["a/__init__.py", "a/b.py", "c.py", "packaging/__init__.py", "packaging/scorer.py"]
    assert [path.as_posix() for path in bundle.needed(tmp_path)] == wanted
    bundle.copy(tmp_path / "copied", tmp_path)
    assert (tmp_path / "copied/a/b.py").read_text("utf-8") == files["a/b.py"]
