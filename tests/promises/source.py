"""R25: nothing in the source can execute what it reads: a scan of the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.promises.lab import Lab
from tests.promises.outcome import Control, Outcome, control

ROOT = Path(__file__).parents[2]
SCANNED = ("src", "bench", "tests/promises")
ALLOWED = ("tests/promises/broken.py",)  # breaks the product on purpose, for negative controls

MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
UNPACKING = {"extractall", "unpack_archive"}
YAML = {"load", "load_all", "unsafe_load", "full_load"}

FORBIDDEN = (
    "torch.load(path)",
    "torch.load(path, weights_only=False)",
    "from torch import load",
    "import pickle",
    "from pickle import loads",
    "import importlib; importlib.import_module('pickle')",
    "numpy.load(path, allow_pickle=True)",
    "yaml.load(text)",
    "yaml.load(text, Loader=yaml.Loader)",
    "from yaml import load",
    "eval(text)",
    "exec(text)",
    "import builtins; builtins.eval(text)",
    "archive.extractall()",
    "shutil.unpack_archive(path)",
    "subprocess.run(text, shell=True)",
    "subprocess.run(text, shell=chosen)",
    "os.system(text)",
    "os.popen(text)",
    "jinja2.Environment()",
    "import jinja2; jinja2.Environment(autoescape=chosen)",
    "from jinja2 import Environment; Environment(autoescape=False)",
)
HARMLESS = """
torch.load(path, weights_only=True)
yaml.safe_load(text)
yaml.load(text, Loader=yaml.SafeLoader)
jinja2.Environment(autoescape=True)
Environment()
subprocess.run(words)
model.eval()
re.compile(text)
"""


def check(lab: Lab, tries: int) -> Outcome:
    """Scans every module of the package and of the bench."""
    del lab, tries  # a scan is neither random nor repeated
    paths = [path for folder in SCANNED for path in sorted((ROOT / folder).rglob("*.py"))]
    failures = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in paths
        if str(path.relative_to(ROOT)) not in ALLOWED
        for line in scan(path.read_text())
    ]
    failures += [f"false alarm at {line}" for line in scan(HARMLESS)]
    return Outcome(len(paths), tuple(failures), tuple(map(_planted, FORBIDDEN)))


def _planted(text: str) -> Control:
    return control(text, scan(text), sees="1: ")


def scan(text: str) -> Iterator[str]:
    """`LINE: what` for each forbidden call or import in a piece of source."""
    tree = ast.parse(text)
    templates = {"jinja2.Environment"} | _bare_templates(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            what = _call(node, templates)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            what = _import(node)
        else:
            continue
        if what:
            yield f"{node.lineno}: {what}"


def _bare_templates(tree: ast.Module) -> set[str]:
    """The names under which the environment of jinja2 was imported."""
    imports = (n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "jinja2")
    aliases = (alias for node in imports for alias in node.names)
    return {alias.asname or alias.name for alias in aliases if "Environment" in alias.name}


def _import(node: ast.Import | ast.ImportFrom) -> str:
    names = [alias.name for alias in node.names]
    module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
    roots = {(module or name).split(".")[0] for name in names}
    if roots & MODULES:
        return f"import of {', '.join(roots & MODULES)}"
    if module in ("torch", "yaml", "numpy") and "load" in names:
        return f"load of {module} under its bare name"
    return ""


def _call(node: ast.Call, templates: set[str]) -> str:
    name = ast.unparse(node.func)
    owner, _, last = name.rpartition(".")
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    arguments = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    forbidden = {
        "torch.load without weights_only=True": name == "torch.load"
        and keywords.get("weights_only") != "True",
        "pickle in numpy.load": keywords.get("allow_pickle", "False") != "False",
        "yaml.load without SafeLoader": owner == "yaml"
        and last in YAML
        and keywords.get("Loader") not in ("yaml.SafeLoader", "SafeLoader"),
        f"{last}()": owner in ("", "builtins") and last in BUILTINS,
        f"{last}() of an archive": last in UNPACKING,
        "a shell": keywords.get("shell", "False") != "False" or name in ("os.system", "os.popen"),
        "a template without autoescape": name in templates and keywords.get("autoescape") != "True",
        "a hidden import": last == "import_module" and bool(MODULES & set(arguments)),
    }
    return ", ".join(what for what, found in forbidden.items() if found)
