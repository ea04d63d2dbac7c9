"""Every kernel for GPUs is compiled to machine code for every architecture, and takes what the table says."""

import json

import pytest

pytest.importorskip("numba.cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')
pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

import resource_table

from pio.kernels.cuda._compiler import ARCHITECTURES

WRITE = "write the table anew: python tests/cuda/resource_table.py"
REGISTERS = 65536  # of a multiprocessor


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_take_what_the_table_says(architecture, request):
    if architecture != "sm_90a" and not request.config.getoption("--long"):
        pytest.skip("one architecture is enough for every day; --long takes all")
    table = json.loads(resource_table.TABLE.read_text("utf-8"))
    found = dict(resource_table.kernels())
    assert sorted(found) == sorted(table["kernels"]), WRITE
    for name, kernel in found.items():
        taken, known = resource_table.measured(kernel, architecture), table["kernels"][name].get(architecture)
        assert taken["spilled"] == 0, name
        assert taken["registers"] * kernel.shape.block <= REGISTERS, name
        if known is not None and table[resource_table.LINKER] == resource_table.linker():
            assert taken == known, f"{name}; {WRITE}"
