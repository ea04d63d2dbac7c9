"""The tool that shows tiles on other processors, and what it shows: the instructions that each has, and no spills."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pio.kernels import _atomics
from pio.kernels._amx_tile import matrix_tile
from pio.kernels._formats import FORMATS
from pio.kernels.quantized_tiles import paired_tile, quantized_tile
from pio.kernels.simd import JIT
from pio.kernels.tiles import dot_tile, outer_tile, pair_tile
from pio.kernels.values_tiles import span_tile, values_tile
from pio.system import HERE

PATH = Path(__file__).parent.parent / "tools" / "assembly.py"
GROUPS, FOURS, VECTORS = 2, 8, 4  # of a pair; of four inputs in a group; of four lanes in a block of outputs
PRODUCTS = GROUPS * FOURS * VECTORS  # vectors of weights
DOTS = "[su]{1,2}(dot|mmla)|bfdot"

pytestmark = pytest.mark.skipif(not JIT, reason="there is no code to look at")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("assembly", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["assembly"] = module
    spec.loader.exec_module(module)
    return module


tool = load()


def loop(tile, cpu):
    return tool.inner_loop(tool.assembly(tile, tool.PROCESSORS[cpu]))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("cpu", "rows", "expected"),
    [
        ("neoverse-v2", 1, {"usdot": PRODUCTS}),
        ("neoverse-v2", 2, {"usdot": 2 * PRODUCTS}),
        ("neoverse-v2", 4, {"usmmla": 2 * PRODUCTS}),  # each does two rows
        ("generic", 4, {"usmmla": 2 * PRODUCTS}),
        ("apple-m4", 1, {"usdot": PRODUCTS}),
        ("apple-m4", 4, {"usmmla": 2 * PRODUCTS}),
        ("neoverse-n1", 1, {"sdot": PRODUCTS}),
        ("neoverse-n1", 4, {"sdot": 4 * PRODUCTS}),
        ("apple-m1", 1, {"sdot": PRODUCTS}),
        ("cortex-a72", 1, {}),
    ],
)
def test_quantized_tiles_multiply_with_the_instructions_that_a_processor_has(form, cpu, rows, expected):
    found = loop(quantized_tile(rows, tool.PROCESSORS[cpu].dot)[form], cpu)
    assert {name: found.count(name) for name in ("sdot", "usdot", "smmla", "usmmla") if found.count(name)} == expected
    if not expected:
        assert found.count("sm(ul|la)l2?") == 2 * PRODUCTS  # eight bytes each


@pytest.mark.parametrize(
    ("machine", "cpu", "instruction"),
    [("aarch64", "neoverse-n1", "isb"), ("aarch64", "apple-m1", "isb"), ("x86_64", "haswell", "pause")],
)
def test_a_waiting_loop_gives_way_to_what_shares_its_core(monkeypatch, machine, cpu, instruction):
    monkeypatch.setattr(HERE, "machine", machine)
    assert instruction in tool.assembly(_atomics.pause, tool.PROCESSORS[cpu]).split()


@pytest.mark.parametrize("cpu", ["neoverse-v2", "neoverse-n1", "generic", "apple-m1", "apple-m4"])
def test_decoding_spills_nothing(cpu):
    processor = tool.PROCESSORS[cpu]
    tiles = {form: quantized_tile(1, processor.dot)[form] for form in FORMATS}
    tiles |= {"values": values_tile(1, processor.dot), "pairs": pair_tile(1, 1, processor.pairs)}
    assert {name: loop(tile, cpu).stack for name, tile in tiles.items()} == dict.fromkeys(tiles, 0)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("cpu", ["neoverse-v2", "apple-m4"])
def test_four_rows_have_their_sums_on_the_stack_and_nothing_else(form, cpu):
    found = loop(quantized_tile(4, "i8mm")[form], cpu)
    assert found.stack == GROUPS * 4 * VECTORS  # read and written, two vectors an instruction


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(("cpu", "instruction"), [("neoverse-v2", "smmla"), ("neoverse-n1", "sdot")])
def test_values_are_multiplied_as_signed_bytes(rows, cpu, instruction):
    found = loop(values_tile(rows, tool.PROCESSORS[cpu].dot), cpu)
    matrices = instruction == "smmla" and rows > 1
    assert found.count("smmla" if matrices else "sdot") == rows * FOURS * VECTORS // (1 + matrices)
    assert found.count(DOTS) == rows * FOURS * VECTORS // (1 + matrices) and found.stack == 0


def test_values_of_a_span_are_multiplied_as_often_as_those_of_a_block():
    for cpu in ("neoverse-v2", "neoverse-n1"):
        dot = tool.PROCESSORS[cpu].dot
        of_span, of_block = loop(span_tile(4, dot), cpu), loop(values_tile(4, dot), cpu)
        assert of_span.count(DOTS) == of_block.count(DOTS) > 0


def test_pairs_of_bfloat16_are_one_instruction():
    for cpu in ("neoverse-v2", "apple-m4"):
        found = loop(pair_tile(2, 2, "bfdot"), cpu)
        assert (found.count("bfdot"), found.stack) == (2 * 2 * VECTORS, 0)
    assert loop(pair_tile(2, 2, "portable"), "neoverse-n1").count(DOTS) == 0
    assert loop(pair_tile(4, 6, "avx512"), "sapphirerapids").count("vdpbf16ps") == 4 * 6


@pytest.mark.parametrize("cpu", ["neoverse-v2", "apple-m1"])
def test_outer_products_and_dot_products_spill_nothing_on_arm(cpu):
    assert loop(outer_tile(4, 2, 4)["float32"], cpu).stack == 0 < loop(outer_tile(4, 2, 24)["float32"], cpu).stack
    assert loop(dot_tile(2, 2)["bfloat16"], cpu).stack == 0


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("dot", "cpu", "instruction", "vectors"),
    [("vnni", "cascadelake", "vpdpbusd", 1), ("avx2", "haswell", "vpmaddwd", 2)],
)
def test_x86_multiplies_with_its_own(form, dot, cpu, instruction, vectors):
    assert loop(quantized_tile(2, dot)[form], cpu).count(instruction) >= 2 * GROUPS * FOURS * vectors


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("cpu", ["cascadelake", "sapphirerapids"])
def test_two_blocks_share_what_is_read_of_a_row_and_stay_in_registers(form, cpu):
    rows = 6
    found = loop(paired_tile(rows, "vnni")[form], cpu)
    assert found.count("vpdpbusd") == 2 * GROUPS * FOURS * rows and found.stack <= 5
    ones = loop(quantized_tile(rows, "vnni")[form], cpu)
    assert found.loads - ones.loads < GROUPS * FOURS * rows / 2  # twice the products


@pytest.mark.parametrize("form", FORMATS)
def test_a_tile_of_amx_scales_with_what_it_reads_in_place(form):
    found = loop(matrix_tile[form], "sapphirerapids")
    units, rows = 2, 16
    assert [found.count(name) for name in ("tdpbssd", "tilestored", "vcvtdq2ps")] == [4, 4, GROUPS * units * rows]
    assert found.count("vmovd|vpbroadcastd|vbroadcastss") == 0  # exponents and minima are operands


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("cpu", ["cortex-a72", "haswell"])
def test_the_portable_tile_compiles_anywhere(form, cpu):
    assert loop(quantized_tile(2, "portable")[form], cpu).count(DOTS) == 0


def test_the_loop_with_most_products_is_found_and_counted():
    code = """
tile:                                   // @tile
\tldr\tq0, [sp, #16]                  // 16-byte Reload
.LBB0_1:                                // %outer
\tldp\tq1, q2, [x1]
.LBB0_2:                                // %inner
\tsdot\tv0.4s, v1.16b, v2.4b[1]
\tldr\tq3, [sp, #32]                   // 16-byte Reload
\tstr\tq3, [x2], #16
\tprfm\tpldl2keep, [x2, #768]
\tb.ne\t.LBB0_2
\tstp\tq1, q2, [x3]
\tb.ne\t.LBB0_1
\tret
"""
    found = tool.inner_loop(code)
    assert [line.split()[0] for line in found.lines] == ["sdot", "ldr", "str", "prfm", "b.ne"]
    assert (found.count(tool.PRODUCTS), found.loads, found.stores, found.stack) == (1, 1, 1, 1)


def test_the_tool_prints_a_table_and_a_loop():
    run = [sys.executable, str(PATH), "neoverse-v2"]
    lines = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith("neoverse-v2") and len(lines) == 2 + 4 * 6 + 3 * 3 + 3
    assert {tuple(line.split()[:2]) for line in lines} >= {("int8", "1"), ("int4_zero_point", "8"), ("latents", "4")}
    shown = subprocess.run([*run, "--show", "int4", "1"], capture_output=True, text=True, check=True).stdout
    assert shown.count("usdot") == PRODUCTS
    failed = subprocess.run([*run, "--show", "int4", "9"], capture_output=True, text=True)
    assert failed.returncode == 1 and "there is no tile int4 of 9 rows" in failed.stderr
