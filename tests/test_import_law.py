"""Imports go downwards only; read from the syntax trees, so that an import inside a function counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PIO = ROOT / "pio"

FOUNDATION = {
    "device",
    "dtypes",
    "errors",
    "forks",
    "machine",
    "memory",
    "shelter",
    "system",
    "tensor",
    "thread_log",
    "threads",
    "version",
}

BELOW_PROGRAMS = {
    "ops",
    "cache",
    "layers",
    "progress",
    "loading",
    "store",
    "media",
    "text",
    "structured",
    "config",
    "engine",
    "plugin",
}

# What each area may import besides itself. Folders and single modules of pio are areas; FOUNDATION is one.
LAW: dict[str, set[str]] = {
    "foundation": set(),
    "cuda": {"errors", "memory", "system"},
    "kernels": {"errors", "forks", "shelter", "system", "threads"},
    "ops": FOUNDATION | {"kernels"},
    "cache": FOUNDATION | {"ops"},
    "layers": FOUNDATION | {"ops", "cache"},
    "progress": FOUNDATION | {"ops"},  # the first compilation is what takes long
    "loading": FOUNDATION | {"ops", "progress"},
    "store": FOUNDATION | {"loading"},
    "media": FOUNDATION | {"ops", "loading"},
    "text": FOUNDATION | {"loading"},
    "config": FOUNDATION | {"loading"},
    "structured": FOUNDATION | {"ops", "loading", "text"},
    "engine": FOUNDATION | {"ops", "cache", "store", "config", "text", "structured"},
    "models": FOUNDATION | {"layers", "ops", "cache", "loading", "media", "text", "config", "plugin"},
    "plugin": FOUNDATION
    | {"ops", "cache", "layers", "progress", "loading", "store", "media", "text", "structured", "config", "engine"},
    "benchmarks": FOUNDATION | BELOW_PROGRAMS,
    "prometheus": FOUNDATION | {"engine", "plugin"},
    "cli": FOUNDATION | BELOW_PROGRAMS | {"benchmarks", "testing"},
    "testing": FOUNDATION | BELOW_PROGRAMS,
    "__init__": FOUNDATION | {"plugin", "ops", "config", "engine", "text"},
    "__main__": {"cli"},
}
# Exceptions, each for one module, and only inside functions or for the type checker.
LATER: dict[str, set[str]] = {
    "errors": {"engine"},  # an unfinished answer carries what there is of it
    "device": {"cuda"},  # only where one of that kind is made
    "memory/gpu_allocation": {"cuda"},
    "memory/outgoing": {"cuda"},
    "loading/chat_template": {"text"},  # where it lay before
}
# The command line shows what the checker finds; nothing else that is installed may lean on the test kit.
TESTING_FOR_CLI = {"pio.testing.check_plugin"}

PACKAGES: dict[str, set[str]] = {
    "foundation": {"llvmlite", "platformdirs", "psutil"},  # the first for DLPack's deleters, which are machine code
    "cuda": {"cuda"},
    "kernels": {"numba", "llvmlite", "cuda"},
    "config": {"pydantic"},
    "engine": {"pydantic"},
    "models": {"pydantic"},
    "plugin": {"pydantic"},
    "loading": {"huggingface_hub"},
    "media": {"PIL", "av"},
    "progress": {"rich"},
    "text": {"tokenizers", "jinja2", "markupsafe"},
    "structured": {"llguidance", "pydantic"},
    "benchmarks": {"pydantic"},
    "cli": {"typer", "click", "rich"},
    "prometheus": {"prometheus_client"},
    "testing": {"hypothesis", "pytest"},
}
NEVER = {"numpy", "torch", "transformers"}
DISTRIBUTIONS = {
    "cuda": "numba-cuda",
    "huggingface_hub": "huggingface-hub",
    "PIL": "pillow",
    "prometheus_client": "prometheus-client",
}
EXTRAS = ("vision", "video", "structured", "prometheus", "cuda")  # what only some need is imported where it is used


class Import(NamedTuple):
    """One imported module, and where."""

    area: str
    file: str
    line: int
    module: str
    later: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def area_of(path: Path) -> str:
    parts = path.relative_to(PIO).with_suffix("").parts
    return "foundation" if parts[0] in FOUNDATION else parts[0]


def is_test(path: Path) -> bool:
    return "tests" in path.relative_to(PIO).parts


def is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def imports_of(path: Path, text: str | None = None) -> Iterator[Import]:
    tree = ast.parse(path.read_text("utf-8") if text is None else text)
    later = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING")
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}:{node.lineno}: imports in pio are absolute"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [
                name if node.module.split(".")[0] == "pio" and is_module(name) else node.module for name in inside
            ]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            modules = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        for module in modules:
            yield Import(area_of(path), str(path.relative_to(ROOT)), node.lineno, module, id(node) in later)


FILES = [path for path in sorted(PIO.rglob("*.py")) if not is_test(path)]
IMPORTS = [found for path in FILES for found in imports_of(path)]


def breaks_law(found: Import) -> bool:
    parts = found.module.split(".")
    if parts[0] != "pio" or len(parts) == 1:
        return parts[0] == "pio" and found.area in ("kernels", "foundation")
    target, own = parts[1], Path(found.file).parts
    if target == own[1].removesuffix(".py") or (found.area == "foundation" and target in FOUNDATION):
        sibling = found.area == "models" and len(parts) > 2 and parts[2] != own[2]
        return sibling
    if found.area == "cli" and target == "testing":
        return found.module not in TESTING_FOR_CLI or not found.later
    if found.later and target in LATER.get("/".join(own[1:]).removesuffix(".py"), ()):
        return False
    return target not in LAW[found.area]


def test_every_area_has_a_law() -> None:
    assert {area_of(path) for path in FILES} <= LAW.keys()
    assert {path.stem for path in PIO.iterdir()} >= FOUNDATION


@pytest.mark.parametrize("area", sorted(LAW))
def test_imports_go_downwards(area: str) -> None:
    assert [str(found) for found in IMPORTS if found.area == area and breaks_law(found)] == []


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Return modules of which each imports the next and the last the first, or nothing where there is no circle."""
    left = graph
    while True:
        below = {module for module, imported in left.items() if not imported & left.keys()}
        if not below:
            break
        left = {module: imported for module, imported in left.items() if module not in below}
    walk = [min(left)] if left else []
    while walk:
        following = min(left[walk[-1]] & left.keys())
        if following in walk:
            return walk[walk.index(following) :]
        walk.append(following)
    return []


def test_no_circle_of_modules() -> None:
    graph = {module_of(path): set[str]() for path in FILES}
    for found in IMPORTS:
        module = module_of(ROOT / found.file)
        if found.module in graph:
            graph[module].add(found.module)
    assert " -> ".join(circle_in(graph)) == ""


@pytest.mark.parametrize(
    ("graph", "circle"),
    [
        ({"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}, []),
        ({"a": {"b"}, "b": {"a"}}, ["a", "b"]),
        ({"a": {"b", "d"}, "b": {"c"}, "c": {"e"}, "e": {"b"}, "d": set[str]()}, ["b", "c", "e"]),
        ({"a": {"a"}}, ["a"]),
    ],
)
def test_circles_are_found(graph: dict[str, set[str]], circle: list[str]) -> None:
    assert circle_in(graph) == circle


def test_only_ops_imports_kernels() -> None:
    outside = [f for f in IMPORTS if f.module.startswith("pio.kernels") and f.area not in ("kernels", "ops")]
    assert [str(found) for found in outside] == []


def test_no_array_library() -> None:
    assert [str(found) for found in IMPORTS if found.module.split(".")[0] in NEVER] == []


def test_packages_are_used_where_they_belong_and_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = {name for extra in EXTRAS for name in project["optional-dependencies"][extra]}
    declared = {name.split(">")[0].split("[")[0] for name in {*project["dependencies"], *optional}} - {"pio"}
    foreign = [
        f for f in IMPORTS if f.module.split(".")[0] not in {"pio", "__future__", "_typeshed", *sys.stdlib_module_names}
    ]
    assert [str(f) for f in foreign if f.module.split(".")[0] not in PACKAGES.get(f.area, ())] == []
    assert [str(f) for f in foreign if f.area in ("foundation", "media") and not f.later] == []
    used = {f.module.split(".")[0] for f in foreign if f.area != "testing"}
    assert sorted(DISTRIBUTIONS.get(name, name) for name in used) == sorted(declared)


def test_the_engine_names_no_model() -> None:
    names = {folder.name for folder in (PIO / "models").iterdir() if (folder / "plugin_manifest.json").exists()}
    families = {name.split("_")[0] for name in names}
    assert families
    for path in sorted((PIO / "engine").rglob("*.py")):
        text = path.read_text("utf-8").lower()
        assert not [family for family in families if family in text], path


@pytest.mark.parametrize(
    ("place", "line", "broken"),
    [
        ("kernels/x.py", "from pio.tensor import Tensor", True),
        ("kernels/x.py", "from pio.kernels.simd import load", False),
        ("kernels/x.py", "import pio", True),
        ("layers/x.py", "from pio.kernels import linear", True),
        ("layers/x.py", "from pio import ops", False),
        ("layers/x.py", "def f():\n    from pio import engine", True),
        ("tensor.py", "from pio import ops", True),
        ("tensor.py", "def f():\n    from pio import ops", True),
        ("errors.py", "def f():\n    from pio import engine", False),
        ("models/a/model.py", "from pio.models.b.model import build", True),
        ("models/a/model.py", "from pio.models.a.config import Config", False),
        ("models/a/model.py", "import pio.engine.scheduler", True),
        ("engine/x.py", "import importlib\nimportlib.import_module('pio.models.a')", True),
        ("engine/x.py", "from pio.testing import compare", True),
        ("cli/x.py", "from pio.testing.check_plugin import check_plugin", True),
        ("cli/x.py", "def f():\n    from pio.testing.check_plugin import check_plugin", False),
        ("cli/x.py", "def f():\n    from pio.testing import strategies", True),
    ],
)
def test_the_law_itself(place: str, line: str, broken: bool) -> None:
    assert any(map(breaks_law, imports_of(PIO / place, line))) is broken


def test_importing_pio_loads_nothing_heavy() -> None:
    heavy = "numba llvmlite numpy pydantic tokenizers jinja2 rich typer huggingface_hub asyncio pio.cuda".split()
    code = f"import sys, pio; print([name for name in {heavy!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"


def test_the_cpu_loads_nothing_for_gpus() -> None:
    code = (
        "import sys\nfrom pio import Tensor, ops\n"
        "x = Tensor.from_list([[1.0, 2.0]])\nops.rms_norm(x, x[0], 1e-5).to('cpu').tolist()\n"
        "gpus = 'pio.cuda', 'pio.kernels.cuda', 'cuda', 'numba.cuda'\n"
        "print([name for name in sys.modules if name.startswith(gpus)])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"
