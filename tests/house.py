"""The house as its imports and definitions show it; `python -m tests.house` prints its measures."""

import ast
import functools
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import stopgrad

ROOT = Path(stopgrad.__file__).parent
TESTS = Path(__file__).parent
ROOMS = (
    *("errors", "config", "storage", "images", "method", "runs", "evaluation", "training"),
    *("studies", "report", "export", "speed", "cli"),
)
OF_COMMANDS = {  # besides the face, all that a command takes of rooms: texts, types and checks
    **dict.fromkeys(("errors", "config", "storage"), "any name"),
    "evaluation": ("FROZEN", "MEASURES", "Record", "percent", "to_line"),
    "export": ("check_out",),  # before the run is opened
    "report": ("Table",),
}
FACE = ("", "__main__", "face")  # the public face stands above the rooms that it opens
ON_PATH = """
import os, sys
import numpy as np
from PIL import Image
from stopgrad.cli import main
folder = sys.argv[1]
os.environ["STOPGRAD_CACHE"] = folder + "/cache"
for place in range(48):
    path = f"{folder}/images/{'train' if place < 32 else 'test'}/{place % 2}"
    os.makedirs(path, exist_ok=True)
    pixels = np.random.default_rng(place).integers(0, 255, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(f"{path}/{place}.png")
made = ["--data", folder + "/images", "--preset", "tiny", "--batch", "16", "--epochs", "1"]
assert main(["pretrain", *made, "--out", folder + "/run"]) == 0
assert main(["report", folder + "/run"]) == 0
print(*(module.__file__ for name, module in sys.modules.items() if name.startswith("stopgrad")))
"""


class Import(NamedTuple):
    """One imported name: from which module, by which file."""

    file: str  # dotted, below the package: "images.store"
    module: str  # likewise; "images" is a front door
    name: str


def files() -> list[Path]:
    """Every module of the package."""
    return sorted(ROOT.rglob("*.py"))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """What a file says, read once."""
    return ast.parse(path.read_text())


def dotted(path: Path) -> str:
    """`images.store` for src/stopgrad/images/store.py, `images` for its front door.

    A file outside of the package goes by its name.
    """
    if not path.is_relative_to(ROOT):
        return path.name
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room(module: str) -> str:
    """The room that a module stands in."""
    return module.split(".", maxsplit=1)[0]


def imports(path: Path) -> Iterator[Import]:
    """What a file imports of the package, inside functions and for types alone too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module and room(node.module) == "stopgrad":
            for name in node.names:
                yield Import(
                    dotted(path), node.module.removeprefix("stopgrad").lstrip("."), name.name
                )
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("stopgrad."):
                    yield Import(dotted(path), name.name.removeprefix("stopgrad."), "")
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ROOMS
            and room(dotted(path)) == "face"  # which takes names off the doors themselves
        ):
            yield Import(dotted(path), node.value.id, node.attr)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "stopgrad"
        ):
            yield Import(dotted(path), "", node.attr)


def all_imports() -> list[Import]:
    """What every file imports of the package; an imported submodule counts as that module."""
    modules = {dotted(path) for path in files()}
    found = [one for path in files() for one in imports(path)]
    return [
        one._replace(module=inner, name="")
        if (inner := f"{one.module}.{one.name}".strip(".")) in modules and one.name
        else one
        for one in found
    ]


def offered() -> list[Import]:
    """What the public face offers of the rooms and of its own files."""
    return [
        Import("", node.module or "", name.name)
        for node in ast.walk(tree_of(ROOT / "__init__.pyi"))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    ]


def outside() -> list[Import]:
    """What the benchmarks and the examples import of the package."""
    folders = (ROOT.parents[1] / name for name in ("bench", "examples"))
    return [one for folder in folders for path in folder.glob("*.py") for one in imports(path)]


def of_tests(path: Path) -> list[str]:
    """What a file imports of the tests: `tests.report.pages.Page`."""
    return [
        f"{node.module}.{name.name}"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and room(node.module or "") == "tests"
        for name in node.names
    ]


def doors() -> dict[str, dict[str, str]]:
    """The names of each front door with the file that defines each: {room: {name: file}}."""
    return {
        stub.parent.name: {
            name.asname or name.name: node.module or ""
            for node in ast.walk(tree_of(stub))
            if isinstance(node, ast.ImportFrom)
            for name in node.names
        }
        for stub in sorted(ROOT.glob("*/__init__.pyi"))
    }


def classes() -> dict[str, list[str]]:
    """Every public name of a class or an alias of a type with the modules that define it."""
    found: dict[str, list[str]] = {}
    for path in files():
        nodes = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
        for name in [node.name for node in nodes] + _aliases(tree_of(path)):
            if not name.startswith("_"):
                found.setdefault(name, []).append(dotted(path))
    return found


def _aliases(tree: ast.Module) -> list[str]:
    """What a module assigns to a name such as `Labels`; one letter is a variable of types."""
    targets = [node.targets[0] for node in tree.body if isinstance(node, ast.Assign)]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if name[:1].isupper() and not name.isupper()]


def circles() -> list[set[str]]:
    """Groups of files that import each other in a loop, found by Tarjan's algorithm."""
    edges: dict[str, set[str]] = {dotted(path): set() for path in files()}
    for one in all_imports():
        if one.module in edges and one.module != one.file:
            edges[one.file].add(one.module)
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in edges[node]:
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            group = set(stack[stack.index(node) :])
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(group)

    for node in edges:
        if node not in order:
            visit(node)
    return found


def measures() -> dict[str, int]:
    """The numbers by which the house is compared from one commit to the next."""
    texts = [path.read_text() for path in files()]
    names = Counter({name: len(places) for name, places in classes().items()})
    return {
        "files": len(texts),
        "lines": sum(text.count("\n") for text in texts),
        "lines with Any": sum(
            bool(re.search(r"\bAny\b", line)) for text in texts for line in text.splitlines()
        ),
        "type: ignore": sum(text.count("type: ignore") for text in texts),
        "class names used twice": sum(count > 1 for count in names.values()),
        "imports past a front door": len(past_doors()),
        "circles": len(circles()),
        "longest file": max(text.count("\n") for text in texts),
        "bodies over 30 lines": sum(lines > 30 for lines in bodies().values()),
        "files under 40 lines": sum(text.count("\n") < 40 for text in texts),
    }


def files_on_path() -> list[Path]:
    """The files, front doors aside, that `pretrain --data FOLDER` and its `report` load."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", ON_PATH, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = [Path(name) for name in done.stdout.splitlines()[-1].split()]
    return [path for path in loaded if path.name != "__init__.py"]


def bodies() -> dict[str, int]:
    """Lines of each function below its docstring: `images.store.pack` -> 24."""
    found = {}
    for path in files():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]
                name = f"{dotted(path)}.{node.name}"
                found[name] = max(lines, found.get(name, 0))
    return found


def past_doors() -> list[Import]:
    """Imports from another room that do not go through its front door."""
    return [
        one
        for one in all_imports()
        if "." in one.module and room(one.module) != room(one.file) and room(one.file) in ROOMS
    ]


if __name__ == "__main__":
    for name, value in measures().items():
        print(f"{value:8,}  {name}")
    on_path = files_on_path()
    print(f"{len(on_path):8,}  files that `pretrain --data FOLDER` and its `report` load")
    print(f"{sum(path.read_text().count(chr(10)) for path in on_path):8,}  lines in them")
