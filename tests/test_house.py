"""The house keeps its order: a module imports only rooms above its own."""

import ast
from pathlib import Path

import stopgrad

ROOT = Path(stopgrad.__file__).parent
ROOMS = (
    *("errors", "files", "randomness", "config", "images", "compute", "views", "encoder", "heads"),
    *("simsiam", "classifier", "loss", "optimizer", "collapse", "features", "knn", "checkpoint"),
    *("weights", "pretrain", "linear", "supervised", "finetune", "records", "evaluate"),
    *("embedding", "speed", "statistics", "compare", "study", "studies", "figures", "examples"),
    *("export", "report", "estimator", "cli"),
)


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("stopgrad."):
            names.add(node.module.split(".")[1])
    return names


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _modules() -> list[Path]:
    return [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]


def test_a_module_imports_only_rooms_above_it() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _modules()
        for name in _imports(path)
        if ROOMS.index(name) > ROOMS.index(_room(path))
    ]
    assert not wrong


def test_the_readme_lists_the_rooms_in_this_order() -> None:
    readme = (ROOT.parents[1] / "README.md").read_text()
    places = [readme.index(f"\n    {room} ") for room in ROOMS]
    assert places == sorted(places)


def test_every_module_opens_with_a_docstring_and_stays_under_300_lines() -> None:
    for path in _modules():
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), path
        assert text.count("\n") <= 300, path
