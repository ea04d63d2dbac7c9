"""Every kernel for GPUs is compiled to machine code for every architecture, and takes what the table says.

No kernel of the table keeps registers in memory, on any architecture, but for the exceptions named here: so none that
decoding needs does, whichever it is. An exception that is none any more has to go.
"""

import json
import re

import pytest

pytest.importorskip("numba.cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')
pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

import resource_table

from pio.kernels.cuda import _compiler, _jit
from pio.kernels.cuda._compiler import ARCHITECTURES
from pio.kernels.cuda._variants import VARIANTS

WRITE = "write the table anew: python tests/cuda/resource_table.py"
REGISTERS = 65536  # of a multiprocessor
SHARED = 99 << 10  # bytes that a block may have on the architectures that have least
# Kernels that may keep some registers in memory, each with why: none of them may run in a step that decodes.
EXCEPTIONS: dict[str, str] = {}
# What kernels of a module share is compiled once.
MODULES = sorted({name.partition(".")[0] for name, _ in resource_table.kernels()})


def excepted(name):
    return name.partition("[")[0] in EXCEPTIONS


@pytest.fixture(scope="module")
def table():
    return json.loads(resource_table.TABLE.read_text("utf-8"))


def test_the_table_has_all_kernels_and_architectures(table):
    assert sorted(name for name, _ in resource_table.kernels()) == sorted(table["kernels"]), WRITE
    for name, row in table["kernels"].items():
        assert sorted(row) == sorted(ARCHITECTURES), f"{name}; {WRITE}"


def test_no_kernel_keeps_registers_in_memory(table):
    for name, row in table["kernels"].items():
        spilled = {architecture: taken["spilled"] for architecture, taken in row.items() if taken["spilled"]}
        assert not spilled or excepted(name), f"{name} spills {spilled}"
    spilling = {name.partition("[")[0] for name, row in table["kernels"].items() for t in row.values() if t["spilled"]}
    assert spilling == set(EXCEPTIONS)


def test_an_exception_is_a_kernel_of_many_rows():
    """Steps that decode run kernels of few rows, and all that are for any number of rows."""
    many = {f"{name.removeprefix('pio.kernels.cuda.').partition('.')[0]}.{by.many}" for name, by in VARIANTS.items()}
    assert many <= {name.partition("[")[0] for name, _ in resource_table.kernels()}
    assert many.issuperset(EXCEPTIONS)


def test_shared_memory_is_what_every_architecture_has(table):
    for name, row in table["kernels"].items():
        assert max(taken["shared"] for taken in row.values()) <= SHARED, name


def moved(kernel):
    """Instructions that lanes execute together, which LLVM may move to where only some of them come."""
    lines = [line for module in kernel.llvm for line in module.splitlines() if " asm " in line]
    return [line for line in lines if re.search(r"\.(sync|aligned)\b", line) and not line.endswith(" convergent")]


@pytest.mark.parametrize("module", MODULES)
def test_kernels_take_what_the_table_says(module, table):
    for name, kernel in resource_table.kernels():
        if name.partition(".")[0] != module:
            continue
        assert not moved(kernel), name
        for architecture in ARCHITECTURES:
            taken, known = resource_table.measured(kernel, architecture), table["kernels"][name][architecture]
            assert taken["spilled"] == 0 or excepted(name), (name, architecture)
            assert taken["registers"] * kernel.shape.block <= REGISTERS, (name, architecture)
            if table[resource_table.LINKER] == resource_table.linker():
                assert taken == known, f"{name} for {architecture}; {WRITE}"


def untagged(text):
    """Return a text without the tags of names, such as ``B4v257``: a length and as many characters."""
    parts, at = [], 0
    for tag in re.finditer(r"B(\d+)(?=v\d|cw)", text):
        parts.append(text[at : tag.start()])
        at = tag.end() + int(tag[1])
    return "".join([*parts, text[at:]])


@pytest.mark.parametrize("name", ["_linears.few_linears[bfloat16]", "norm.rms_norm[float32]", "softmax.softmax"])
def test_llvm_code_does_not_depend_on_the_architecture_that_numba_is_told(name, monkeypatch):
    kernel = dict(resource_table.kernels())[name]

    def made(architecture):
        """Modules, without what Numba's names say of options and of how much it has compiled."""
        fresh = {}

        def dispatcher(function):
            if function not in fresh:
                fresh[function] = _compiler.device_dispatcher(_jit._resolved(function.py_func), function._inline)
            return fresh[function]

        monkeypatch.setattr(_jit.DeviceFunction, "dispatcher", property(dispatcher))
        monkeypatch.setattr(_compiler, "LEAST", architecture)
        modules = _compiler.to_llvm(_jit._resolved(kernel.py_func), kernel.letters, kernel.shape.block, 2)
        assert len(modules) > 1 and len(fresh) > 1
        return sorted(re.sub(r"\$\d+", "", untagged(module)) for module in modules)

    assert made(_compiler.LEAST) == made((12, 0, "a"))
