"""Import order: each room imports only from lower floors, and optional libraries stay out."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "qdgnn_ase"
PLUGINS = sorted(path.name for path in (ROOT / "plugins").glob("qdgnn_*"))
FLOORS = {
    "properties": 0,
    "graph": 1,
    "data": 2,
    "quantum": 2,
    "nn": 3,
    "training": 4,
    "inference": 5,
    "testing": 6,
    "cli": 7,
}
DGL_FILES = {Path("graph/dgl.py"), Path("nn/segment.py")}
LAZY = ("torch", "dgl", "deepchem", "matgl", "phonopy")


def modules() -> list[Path]:
    paths = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
    return [path for path in paths if path != Path("__init__.py")]


def room_of(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


class Runtime(ast.NodeTransformer):
    """Drops the blocks that only type checkers read."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def tree_of(module: Path) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a file imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports must be absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", modules(), ids=str)
def test_imports_only_from_lower_floors(module: Path) -> None:
    """The package's own __init__ exports lazily and has a test of its own."""
    room = room_of(module)
    assert room in FLOORS, f"{module} is in no known room: {sorted(FLOORS)}"
    for name in imports(tree_of(module)):
        parts = name.split(".")
        if parts[0] == "qdgnn_ase" and parts[1] in FLOORS and parts[1] != room:
            assert FLOORS[parts[1]] < FLOORS[room], f"{module} imports {name}"


@pytest.mark.parametrize("module", modules(), ids=str)
def test_no_plugins_and_dgl_in_two_files(module: Path) -> None:
    top = {name.split(".")[0] for name in imports(Runtime().visit(tree_of(module)))}
    plugins = {name for name in top if name.startswith("qdgnn_")} - {"qdgnn_ase"}
    assert not plugins & {*PLUGINS, *plugins}, f"{module} imports plugins {plugins}"
    if module not in DGL_FILES:
        assert "dgl" not in top, f"{module} imports dgl"


def test_dgl_is_imported_inside_functions_only() -> None:
    for module in DGL_FILES:
        statements = Runtime().visit(tree_of(module)).body
        top = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {name.split(".")[0] for name in imports(ast.Module(top, []))}
        assert "dgl" not in names, module


def test_import_is_light() -> None:
    """``import qdgnn_ase`` and its version load nothing heavy."""
    code = (
        "import sys, qdgnn_ase; qdgnn_ase.__version__; dir(qdgnn_ase); "
        f"print([name for name in {LAZY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_export_exists() -> None:
    import qdgnn_ase

    for name in qdgnn_ase.__all__:
        assert getattr(qdgnn_ase, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = qdgnn_ase.nonsense
