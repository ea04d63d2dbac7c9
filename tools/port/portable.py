"""Finds what holds on one system alone, outside of the modules that are there for it.

python tools/port/portable.py [PATH ...]   prints FILE:LINE: WHAT, and exits with 1 where there is any

Read from the syntax trees; names in strings count where they are asked for (``getattr(os, "O_BINARY")``) and where a
string is a program. What a name of the standard library does not have on another system, pyright says
(``--pythonplatform``), and what an encoding is missing for, ruff (PLW1514).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SYSTEMS: Final = "pio/system/"  # one module for each
EXCEPTIONS: Final = {
    "pio/kernels/_processor.py": {"'/proc/cpuinfo'"},  # which processor this is, where there is such a file
    "pio/cli/findings.py": {"platform.machine"},  # shown in the system's own words
}

# Modules that not every system has, or that do something else there.
MODULES: Final = frozenset(
    "_posixsubprocess _winapi fcntl grp msvcrt nt posix pty pwd readline resource select syslog termios tty winreg "
    "winsound".split()
)
# Names of other modules, with * for any letters.
NAMES: Final = {
    "ctypes": "CDLL PyDLL WinDLL OleDLL HRESULT WINFUNCTYPE WinError FormatError *dll get_last_error util",
    "mmap": "MAP_* PROT_* MADV_*",
    "os": "name uname* rename* getppid kill* *[gs]et*uid *[gs]et*gid [gs]etgroups getlogin *chown *chmod *chflags "
    "umask fork* register_at_fork exec[lv]* posix_* spawn* startfile wait* W[A-Z]* sched_* nice *priority getloadavg "
    "*pgrp *pgid *sid pread* pwrite* readv writev sendfile splice eventfd* memfd_* pidfd_* pipe2 mkfifo mknod openpty "
    "ttyname ctermid sysconf* confstr* *pathconf *statvfs sync fdatasync *xattr O_* add_dll_directory getrandom "
    "[gs]et_blocking",
    "platform": "*",
    "signal": "SIG* CTRL_* pthread_* *wait* *itimer ITIMER_* alarm pause set_wakeup_fd",
    "sys": "platform getwindowsversion winver dllhandle *dlopenflags abiflags getandroidapilevel",
    "time": "clock_* CLOCK_* pthread_* tzset",
}
# Of these, what is the same everywhere.
COMMON: Final = {
    "os": "O_RDONLY O_WRONLY O_RDWR O_CREAT O_EXCL O_TRUNC O_APPEND",
    "platform": "python_*",
    "signal": "SIGINT SIG_DFL SIG_IGN Signals",
}
ARGUMENTS: Final = re.compile(
    r"creationflags|startupinfo|preexec_fn|process_group|start_new_session|pass_fds|extra_groups"
)
ATTRIBUTES: Final = re.compile(r"st_(uid|gid|blocks|rdev|flags|birthtime|file_attributes|reparse_tag)|drive|as_posix")
PLACES: Final = re.compile(r"(/(proc|sys|dev|etc|usr|bin|tmp|var|run|opt|home)(/|$)|[A-Za-z]:\\|\\\\[.?]\\)")
LOADERS: Final = re.compile(r"getattr|hasattr|setattr|delattr")


def names_of(tree: ast.AST) -> dict[str, str]:
    """Return what a file calls the modules that it imports, and names that it takes from them, in full."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_one_of(name: str, patterns: str) -> bool:
    """Return whether a name fits one of some patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns.split())


def is_portable(full: str) -> bool:
    """Return whether a name of a module is there on every system and means the same."""
    module, _, name = full.partition(".")
    name = name.partition(".")[0]
    return module not in MODULES and (
        not is_one_of(name, NAMES.get(module, "")) or is_one_of(name, COMMON.get(module, "")) or not name
    )


def programs(text: str) -> list[ast.Module]:
    """Return a string's syntax tree, if it is a program."""
    if not re.search(r"^\s*(import|from) \w", text, re.MULTILINE):
        return []
    try:
        return [ast.parse(text)]
    except SyntaxError:
        return []


def documentation(tree: ast.AST) -> set[ast.AST]:
    """Return the strings that nothing reads."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def not_portable(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of whatever holds on one system alone."""
    names, silent = names_of(tree), documentation(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Import():
                yield from ((line, alias.name) for alias in node.names if not is_portable(alias.name))
            case ast.ImportFrom(module=str(module), level=0):
                fulls = [f"{module}.{alias.name}" for alias in node.names]
                yield from ((line, full) for full in fulls if not is_portable(full))
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in names:
                if not is_portable(f"{names[name]}.{attribute}"):
                    yield line, f"{names[name]}.{attribute}"
            case ast.Attribute(attr=attribute) if ATTRIBUTES.fullmatch(attribute):
                yield line, f".{attribute}"
            case ast.Call(
                func=ast.Name(id=called), args=[ast.Name(id=name), ast.Constant(value=str(attribute)), *_]
            ) if LOADERS.fullmatch(called) and name in names and not is_portable(f"{names[name]}.{attribute}"):
                yield line, f"{names[name]}.{attribute}"
            case ast.keyword(arg=str(argument)) if ARGUMENTS.fullmatch(argument):
                yield line, f"{argument}="
            case ast.Constant(value=str(text)) if node not in silent:
                if PLACES.match(text):
                    yield line, repr(text)
                for program in programs(text):
                    yield from ((line + inner - 1, what) for inner, what in not_portable(program))


def look(paths: list[Path]) -> Iterator[str]:
    """Yield what is not portable in files and folders, as FILE:LINE: WHAT, and exceptions that they do not need."""
    for path in sorted(file for given in paths for file in (given.rglob("*.py") if given.is_dir() else [given])):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(SYSTEMS):
            continue
        found = sorted(set(not_portable(ast.parse(path.read_text("utf-8")))))
        allowed = EXCEPTIONS.get(name, set())
        yield from (f"{name}:{line}: {what}" for line, what in found if what not in allowed)
        yield from (
            f"{name}: an exception for {what}, which it has not"
            for what in sorted(allowed - {what for _, what in found})
        )


if __name__ == "__main__":
    lines = list(look([Path(path).resolve() for path in sys.argv[1:]] or [ROOT / "pio"]))
    print(*lines, sep="\n", end="\n" if lines else "")
    sys.exit(bool(lines))
