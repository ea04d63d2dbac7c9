"""Every kernel for GPUs is run by a test, and the page that says so is that of the table."""

import pytest

pytest.importorskip("numba.cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')
pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

import coverage_table
from coverage_table import ALONE, BESIDE_CPU, BESIDE_TWIN, CPU, OPERATION, WRITE
from gpu_case import numbers, run
from kernel_runs import Runs, kernel_of, watch

from pio import ops
from pio.kernels.cuda import elementwise

NORM = "norm.rms_norm_float16"


def test_every_kernel_is_run_by_a_test_that_exists():
    table = coverage_table.known()
    assert sorted(table) == sorted(coverage_table.kernels().values()), WRITE
    assert coverage_table.unproven(table) == []
    named = {file for row in table.values() for files in row.values() for file in files}
    assert named <= {path.name for path in coverage_table.HERE.glob(coverage_table.FILES)}, WRITE


def test_the_page_shows_the_table():
    assert coverage_table.PAGE.read_text("utf-8") == coverage_table.page(coverage_table.known()), WRITE


def test_what_runs_is_noted_where_it_runs(monkeypatch, driver):
    runs, x = Runs(), numbers(3, 5)
    watch(monkeypatch, runs)
    there, out = x.to("cuda"), numbers(3, 5)
    ops.add(there, there).tolist()
    assert runs.now == {OPERATION: {"elementwise.add"}}
    ops.add(x, x)
    run(elementwise.mul, out, x, x, x.size)
    assert "elementwise.add" in runs.now.pop(CPU)  # beside what has it done in parts
    assert runs.now == {OPERATION: {"elementwise.add"}, ALONE: {"elementwise.mul"}}


def test_a_name_is_read_from_the_entry():
    assert kernel_of("_ZN3pio7kernels4cuda4norm16rms_norm_float32B2v1Exxx") == "norm.rms_norm_float32"
    assert kernel_of("_ZN6cudapy3pio7kernels4cuda8_packing9pack_int8B2v1Exxx") == "_packing.pack_int8"
    assert kernel_of("_Z5scalexf") is None


def test_a_table_holds_what_tests_ran():
    files = ("test_cuda_a.py", "test_cuda_b.py", "test_cuda_c.py")
    runs = {
        f"{files[0]}::test_x": {ALONE: {NORM}, CPU: {NORM, "norm.rms_norm_float32"}},
        f"{files[1]}::test_x": {ALONE: {NORM}, CPU: {"norm.layer_norm_float32"}},
        f"{files[1]}::test_y": {CPU: {NORM}},
        f"{files[2]}::test_x": {OPERATION: {NORM, "another.kernel"}},
    }
    found = coverage_table.measured(runs)
    name = "norm.rms_norm[float16]"
    assert found[name] == {BESIDE_CPU: [files[0]], BESIDE_TWIN: [files[1]], OPERATION: [files[2]]}
    assert f"{name} is run by no test beside the CPU or a twin" not in coverage_table.unproven(found)
    assert "norm.rms_norm[float32] is run by no test beside the CPU or a twin" in coverage_table.unproven(found)
    assert coverage_table.untrue({name: found[name]}, found) == []
    less = coverage_table.measured({test: row for test, row in runs.items() if files[0] not in test})
    assert coverage_table.untrue({name: found[name]}, less) == [f"{name}: {files[0]} has not run it as 'cpu'"]
    again = coverage_table.renewed(found, coverage_table.measured({}), [files[1]])
    assert again[name] == {BESIDE_CPU: [files[0]], BESIDE_TWIN: [], OPERATION: [files[2]]}
