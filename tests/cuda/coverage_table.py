"""Which kernel for GPUs runs in which test, beside what: ``python tests/cuda/coverage_table.py``.

It runs the tests of this folder, takes what ``kernel_runs`` saw of them, and writes ``coverage.json`` and the page
``docs/gpu-kernels.md``. Files can be named; of the others the table keeps what it has. With ``--check FOLDER`` it
writes nothing, and says where the table claims what a run has not shown; with ``--page`` it writes the page alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import kernel_runs
import resource_table
from kernel_runs import ALONE, CPU, OPERATION

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TABLE = HERE / "coverage.json"
PAGE = ROOT / "docs" / "gpu-kernels.md"
BESIDE_CPU, BESIDE_TWIN = "cpu", "twin"
COLUMNS = (BESIDE_CPU, BESIDE_TWIN, OPERATION)
FILES = "test_cuda_*.py"
WRITE = "write the table anew: python tests/cuda/coverage_table.py"
Row = dict[str, list[str]]

# Kernels that no test runs, and why that is right.
_NO_OPERATION = "no operation has it, for matrices of heads meet rows as they are"
EXCEPTIONS = dict.fromkeys(("head_linear.few_heads[rounded]", "head_linear.many_heads[rounded]"), _NO_OPERATION)

HEAD = """# Kernels for NVIDIA GPUs

Which kernels there are, for which formats and architectures, and what has shown that they are right. This page is
written by `python tests/cuda/coverage_table.py` from what the tests ran; `tests/cuda/test_cuda_coverage.py` compares.

**On a GPU: nothing yet.** No kernel has run on one. What follows was run by an interpreter of PTX, on the code that
NVIDIA's compiler made of each kernel for sm_90a: it shows what a kernel computes, and finds accesses out of bounds,
races within a launch and barriers that not all threads reach. It shows neither speed nor what the weak order of memory
does, nor the last bits that NVIDIA does not define ([`tests/cuda/ptx`](../tests/cuda/ptx/__init__.py)).

* **Links for**: architectures for which NVIDIA's linker made machine code of it; what that takes of registers and
  shared memory stands in [`resources.json`](../tests/cuda/resources.json).
* **Beside the CPU**: tests that ran the kernel and the CPU's kernel of the same name.
* **Beside a twin**: tests that compare it with plain Python, or with the CPU's kernel of another name.
* **As an operation**: tests that called `pio.ops` with tensors on a GPU, behind a driver that there is not.

Tests are named by their files in [`tests/cuda`](../tests/cuda), without `test_cuda_`.

"""
COLUMN_NAMES = ("kernel", "formats", "links for", "beside the CPU", "beside a twin", "as an operation")


def kernels() -> dict[str, str]:
    """Return the name of each kernel in this table, by that in ``kernel_runs``."""
    found = {}
    for name, kernel in resource_table.kernels():
        module = kernel.name.module.removeprefix("pio.kernels.cuda.")
        found[_public(f"{module}.{kernel.name.full}")] = name
    return found


def _public(name: str) -> str:
    """Return a name without the mark of private modules, in which one of two devices may have its kernel."""
    return name.removeprefix("_")


def measured(runs: Mapping[str, Mapping[str, set[str]]]) -> dict[str, Row]:
    """Return of each kernel the files whose tests ran it, by column."""
    names = kernels()
    table: dict[str, dict[str, set[str]]] = {name: {column: set() for column in COLUMNS} for name in names.values()}
    for test, found in runs.items():
        file = test.partition("::")[0]
        alone, operation, cpu = ({*map(_public, found.get(how, ()))} for how in (ALONE, OPERATION, CPU))
        for seen in (alone | operation) & names.keys():
            row = table[names[seen]]
            if seen in cpu:
                row[BESIDE_CPU].add(file)
            elif seen in alone:
                row[BESIDE_TWIN].add(file)
            if seen in operation:
                row[OPERATION].add(file)
    return {name: {column: sorted(files) for column, files in row.items()} for name, row in table.items()}


def known() -> dict[str, Row]:
    """Return the table that is kept."""
    found: dict[str, Row] = json.loads(TABLE.read_text("utf-8"))
    return found


def unproven(table: Mapping[str, Row]) -> list[str]:
    """Return what is wrong with a table: kernels that no test runs, and exceptions for others."""
    idle = [name for name, row in table.items() if not row[BESIDE_CPU] and not row[BESIDE_TWIN]]
    wrong = [f"{name} is run by no test beside the CPU or a twin" for name in idle if name not in EXCEPTIONS]
    return wrong + [f"{name} is no exception: a test runs it, or there is none" for name in EXCEPTIONS.keys() - idle]


def untrue(table: Mapping[str, Row], found: Mapping[str, Row]) -> list[str]:
    """Return what a table claims and a run has not shown."""
    return [
        f"{name}: {file} has not run it as {column!r}"
        for name, row in table.items()
        for column, files in row.items()
        for file in files
        if file not in found.get(name, {}).get(column, ())
    ]


def page(table: Mapping[str, Row]) -> str:
    """Return the page that shows a table: a row for each kernel, or several where formats differ."""
    resources = json.loads(resource_table.TABLE.read_text("utf-8"))["kernels"]
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, row in table.items():
        kernel, _, format = name.rstrip("]").partition("[")
        cells = kernel, _architectures(resources.get(name, {})), *(_files(row[column]) for column in COLUMNS)
        rows.setdefault(cells, []).append(format.replace("_to_", " to ").replace("_", " "))
    lines = [
        "| kernel | formats | links for | beside the CPU | beside a twin | as an operation |",
        "|---|---|---|---|---|---|",
    ]
    for (kernel, *cells), formats in sorted(rows.items()):
        lines.append(f"| {' | '.join([f'`{kernel}`', ', '.join(filter(None, formats)) or '–', *cells])} |")
    reasons = [f"`{name}` is run by no test: {reason}." for name, reason in sorted(EXCEPTIONS.items())]
    return HEAD + "\n".join(lines) + "\n" + "".join(f"\n{line}\n" for line in reasons)


def _architectures(row: Iterable[str]) -> str:
    return ", ".join(name.removeprefix("sm_") for name in row) or "none"


def _files(files: Iterable[str]) -> str:
    return ", ".join(file.removeprefix("test_cuda_").removesuffix(".py").replace("_", " ") for file in files) or "–"


def write(table: Mapping[str, Row]) -> None:
    """Write the table and its page."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(table.items()))
    TABLE.write_text(f"{{\n{lines}\n}}\n", "utf-8")
    PAGE.write_text(page(known()), "utf-8")


def run(files: list[str]) -> dict[str, Row]:
    """Run files of tests, all of them by default; return what they show."""
    paths = [HERE / file for file in files] or sorted(HERE.glob(FILES))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "kernel_runs"]
        path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        options = [f"--kernel-runs={folder}", *map(str, paths)]
        subprocess.run(command + options, check=True, env=os.environ | {"PYTHONPATH": path, "CI": "true"}, cwd=ROOT)
        return measured(kernel_runs.read(Path(folder)))


def renewed(before: Mapping[str, Row], found: Mapping[str, Row], files: list[str]) -> dict[str, Row]:
    """Return a table in which these files show what they do now, and the others what they did; all if none is named."""
    table: dict[str, Row] = {}
    for name, row in found.items():
        kept = before.get(name, {}) if files else {}
        table[name] = {c: sorted({f for f in kept.get(c, ()) if f not in files} | set(row[c])) for c in COLUMNS}
    return table


def main(arguments: list[str]) -> None:
    """See the top of this file."""
    if arguments[:1] == ["--check"]:
        wrong = untrue(known(), measured(kernel_runs.read(Path(arguments[1]))))
        sys.exit("\n".join([*wrong, WRITE]) if wrong else 0)
    if arguments == ["--page"]:
        write(known())
        return
    before = known() if TABLE.exists() else {}
    write(renewed(before, run(arguments), arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
