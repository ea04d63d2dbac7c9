"""House rules that a linter does not know."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PIO = ROOT / "pio"
SKIPPED = {"__pycache__", "build", "dist", "venv", "env", "html", "results", "node_modules"}
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ""}
MAX_FILE, MAX_FUNCTION = 400, 90  # lines
MAX_PARAMETERS = 12  # of a kernel; what belongs together is a record

# Variables that other programs define and that say where files are; pio has none of its own.
ENVIRONMENT = {
    "cli/streams.py": {"PYTHONIOENCODING", "PYTHONUTF8"},
    "kernels/_image.py": {"XDG_CACHE_HOME"},
    "kernels/_settings.py": {"NUMBA_CACHE_DIR", "NUMBA_ENABLE_AVX"},
    "loading/hub_cache.py": {"XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"},
}
# Primitives and machinery, proved by the tests of what is built from them.
NO_TWIN = {"simd", "exponential", "tiles", "values_tiles", "parallel", "job_list", "jobs", "launcher", "sizes"}


def files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in SKIPPED or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


SHIPPED = [path for path in files_below(PIO) if path.suffix == ".py" and "tests" not in path.parts]
KERNELS = [path for path in SHIPPED if path.parent.name == "kernels"]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(re.match(r"(parallel_)?kernel(_per_dtype)?\b", ast.unparse(d)) for d in node.decorator_list)


def test_files_are_short() -> None:
    assert {name(p): n for p in SHIPPED if (n := p.read_text("utf-8").count("\n")) > MAX_FILE} == {}


def test_functions_are_short() -> None:
    long = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path in SHIPPED
        for node in functions(path)
        if (node.end_lineno or node.lineno) - node.lineno >= MAX_FUNCTION
    ]
    assert long == []


def test_kernels_state_their_shapes() -> None:
    found = [(path, node) for path in KERNELS for node in functions(path) if is_kernel(node)]
    assert len(found) > 40
    public = [(path, node) for path, node in found if not node.name.startswith("_")]
    silent = [f"{name(p)}:{n.lineno} {n.name}" for p, n in public if "Shapes:" not in (ast.get_docstring(n) or "")]
    assert silent == []


def test_kernels_take_few_parameters() -> None:
    found = {f"{name(p)} {n.name}": len(n.args.args) for p in KERNELS for n in functions(p)}
    assert {kernel: count for kernel, count in found.items() if count > MAX_PARAMETERS} == {}


@pytest.mark.parametrize(
    "kernel", [path.stem for path in KERNELS if path.stem not in NO_TWIN and not path.stem.startswith("_")]
)
def test_a_kernel_has_a_twin_and_a_test(kernel: str) -> None:
    twin = PIO / "testing" / "reference" / f"{kernel}.py"
    assert twin.exists() and (ROOT / "tests" / "kernels" / f"test_{kernel}.py").exists()
    borrowed = [node for node in ast.walk(parse(twin)) if isinstance(node, ast.ImportFrom | ast.Import)]
    assert [text for text in map(ast.unparse, borrowed) if re.search(r"\b(pio|numba|numpy)\b", text)] == []


def names_of_a_model(folder: Path) -> list[str]:
    """The names that only a model's own files give: its folder's and its classes', the longest first."""
    made = [node.name for path in folder.glob("*.py") for node in parse(path).body if isinstance(node, ast.ClassDef)]
    return sorted((folder.name, *made), key=len, reverse=True)


def hands_on(node: ast.stmt) -> bool:
    """Whether a function only gives its arguments to a shared one: to write that in two folders copies nothing."""
    if not isinstance(node, ast.FunctionDef) or len(node.body) != 1 or not isinstance(node.body[0], ast.Return):
        return False
    call = node.body[0].value
    given = [*call.args, *(word.value for word in call.keywords)] if isinstance(call, ast.Call) else []
    return {ast.unparse(value) for value in given} == {argument.arg for argument in node.args.args}


def test_no_two_files_of_models_are_alike() -> None:
    """What two models need is shared in layers or config; names of models and sentences make no difference."""
    found: dict[str, list[str]] = {}
    for path in (p for p in SHIPPED if p.parent.parent == PIO / "models" and p.stem not in ("__init__", "plugin")):
        tree = parse(path)  # a plugin.py is names alone, in a form that the interface gives
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
                node.body = node.body[1:] or [ast.Pass()]
        rest = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)]
        text = "\n".join(ast.unparse(node) for node in rest if not hands_on(node))
        for own in names_of_a_model(path.parent):
            text = re.sub(rf"\b{own}\b", "Own", text)
        if text:
            found.setdefault(text, []).append(name(path))
    assert len(found) > 5 and [paths for paths in found.values() if len(paths) > 1] == []


def test_numba_options_stand_in_one_place() -> None:
    pattern = re.compile(r"\bn?jit\(|fastmath=\{|\bcache=True|nogil=")
    elsewhere = [
        name(path)
        for path in SHIPPED
        if path.stem not in ("_jit", "_compiler") and pattern.search(path.read_text("utf-8"))
    ]
    assert elsewhere == []


def test_no_settings_from_the_environment() -> None:
    for path in SHIPPED:
        reads = {
            argument.value
            for node in ast.walk(parse(path))
            if isinstance(node, ast.Call | ast.Subscript) and re.match(r"os\.(environ|getenv)", ast.unparse(node))
            for argument in ast.walk(node)
            if isinstance(argument, ast.Constant) and str(argument.value).isupper()
        }
        assert reads <= ENVIRONMENT.get(path.relative_to(PIO).as_posix(), set()), path
        bare = [n for n in ast.walk(parse(path)) if isinstance(n, ast.Attribute) and ast.unparse(n) == "os.environ"]
        assert not bare or path.relative_to(PIO).as_posix() in ENVIRONMENT, path


def test_what_holds_on_one_system_stands_in_its_module() -> None:
    looked = subprocess.run(
        [sys.executable, ROOT / "tools" / "port" / "portable.py"], capture_output=True, text=True, encoding="utf-8"
    )
    assert (looked.returncode, looked.stdout, looked.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import os\nos.getuid()", "2: os.getuid"),
        ("import os as system\nsystem.O_CLOEXEC | system.O_RDONLY", "2: os.O_CLOEXEC"),
        ("from os import path, rename", "1: os.rename"),
        ("def late():\n    import fcntl", "2: fcntl"),
        ("import signal\ngetattr(signal, 'SIGHUP', signal.SIGINT)", "2: signal.SIGHUP"),
        ("import ctypes\nctypes.CDLL(None), ctypes.c_int", "2: ctypes.CDLL"),
        ("import sys\nsys.path if sys.platform else 0", "2: sys.platform"),
        ("import subprocess\nsubprocess.run([], creationflags=0)", "2: creationflags="),
        ("def owner(status):\n    return status.st_uid, status.st_size", "2: .st_uid"),
        ('"""/proc/self in a docstring"""\nfile = "/proc/self/status"', "2: '/proc/self/status'"),
        ("child = 'import os\\nos.fork()'", "2: os.fork"),
    ],
)
def test_what_holds_on_one_system_is_found(code: str, found: str) -> None:
    portable = runpy.run_path(str(ROOT / "tools" / "port" / "portable.py"))
    assert [f"{line}: {what}" for line, what in portable["not_portable"](ast.parse(code))] == [found]


def test_an_exception_that_nothing_needs_is_found() -> None:
    portable = runpy.run_path(str(ROOT / "tools" / "port" / "portable.py"))
    portable["EXCEPTIONS"]["pio/errors.py"] = {"os.fork"}
    assert list(portable["look"]([PIO / "errors.py"])) == ["pio/errors.py: an exception for os.fork, which it has not"]


def test_no_error_is_swallowed_and_no_check_can_be_switched_off() -> None:
    for path in SHIPPED:
        for node in ast.walk(parse(path)):
            where = f"{name(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{where}: a bare except catches KeyboardInterrupt too"
                broad = ast.unparse(node.type) in ("Exception", "BaseException")
                assert not (broad and all(isinstance(s, ast.Pass | ast.Continue) for s in node.body)), where
            if isinstance(node, ast.Call) and path.parts[-2] != "cli":
                assert ast.unparse(node.func) not in ("print", "atexit.register", "exit", "sys.exit"), where


def test_no_ignore_without_a_reason() -> None:
    pattern = re.compile(r"#\s*(type: ignore|pyright: ignore|noqa)\s*$", re.MULTILINE)
    assert [name(path) for path in SHIPPED if pattern.search(path.read_text("utf-8"))] == []


def test_nothing_is_left_open_and_no_machine_is_named() -> None:
    open_ends = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    machine = re.compile(r"(?<![\w.:])/(?:work|tmp|root|home|farm)/[\w.-]+")
    found: list[str] = []
    for path in files_below(ROOT):
        if path.suffix not in TEXT or path.stat().st_size > 1 << 18 or path == Path(__file__):
            continue
        text = path.read_text("utf-8", "ignore")
        if path.parent == ROOT / "tests" / "golden" and path.suffix != ".py":
            continue  # stored answers and other people's text
        found += [f"{name(path)}: {hit}" for hit in machine.findall(text) + open_ends.findall(text)]
    assert found == []


def test_no_merge_is_left_half_done() -> None:
    mark = re.compile(rb"^(?:<{7}|>{7}) \S", re.MULTILINE)
    files = [path for path in [*files_below(ROOT), *ROOT.glob(".ci/*")] if path.stat().st_size < 1 << 18]
    assert [name(path) for path in files if mark.search(path.read_bytes())] == []


def test_the_package_is_marked_as_typed_and_licensed() -> None:
    assert (PIO / "py.typed").exists()
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    assert "Python Software Foundation" in (PIO / "demo" / "README.md").read_text("utf-8")


def test_every_operation_has_a_benchmark() -> None:
    from pio import ops

    text = (ROOT / "benchmarks" / "kernels.py").read_text("utf-8")
    recorded = {
        "Choices",
        "PackedWeight",
        "Pages",
        "Program",
        "Window",
        "recording",
    }  # no operations: other benchmarks have them
    assert [op for op in ops.__all__ if op not in recorded and not re.search(rf"\bops\.{op}\(", text)] == []
    assert "sampler.sample(" in text
