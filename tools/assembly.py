"""Show what the register tiles become on processors that need not be here: tables of their inner loops, or one loop.

    python tools/assembly.py                              # tables for all processors
    python tools/assembly.py neoverse-v2 apple-m4         # for these
    python tools/assembly.py neoverse-v2 --show int8 4    # the inner loop of a tile, here int8 of four rows

Each tile is emitted as a kernel would have it, optimised as Numba optimises kernels, and compiled by LLVM. A line of
the table counts what is in the loop over the inner dimension: instructions in all, those that multiply, loads, stores,
and how many loads and stores are of the stack: registers that were spilled, or sums that are kept there on purpose. The
last number is what each row has of the instructions.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import fastmathpass
from numba.core.llvm_bindings import create_pass_builder
from numba.core.registry import cpu_target

from pio.kernels import _llvm as ll
from pio.kernels._formats import FORMATS
from pio.kernels._jit import CONTRACT
from pio.kernels._quarters import ARM
from pio.kernels.quantized_latent import latents_tile
from pio.kernels.quantized_tiles import paired_tile, quantized_tile
from pio.kernels.tiles import dot_tile, outer_tile, pair_tile
from pio.kernels.values_tiles import span_tile, values_tile

LINUX_ARM, MAC, LINUX_X86 = "aarch64-linux-gnu", "arm64-apple-darwin", "x86_64-linux-gnu"
PRODUCTS = (
    r"bfdot|fml[as]|[su]{1,2}(dot|mmla)|sm(ul|la)l2?|mul|mla|vfn?madd\w+|vpdpbusd|vpmadd\w+|vpmulld|vdpbf16ps|tdpb\w+"
)


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor to compile for.

    Attributes:
        triple: LLVM's name for its system.
        cpu: LLVM's name for it.
        dot: How integer tiles multiply there.
        pairs: How tiles of bfloat16 do.
        features: What LLVM is told that it can do besides.
    """

    triple: str
    cpu: str
    dot: str
    pairs: str = "portable"
    features: str = ""


PROCESSORS = {
    p.cpu: p
    for p in (
        Processor(LINUX_ARM, "neoverse-v2", "i8mm", "bfdot"),
        Processor(LINUX_ARM, "neoverse-n1", "sdot"),
        Processor(LINUX_ARM, "cortex-a72", "neon"),
        Processor(LINUX_ARM, "generic", "i8mm", "bfdot", "+dotprod,+i8mm,+bf16"),  # one that LLVM does not know
        Processor(MAC, "apple-m1", "sdot"),
        Processor(MAC, "apple-m4", "i8mm", "bfdot"),
        Processor(LINUX_X86, "haswell", "avx2"),
        Processor(LINUX_X86, "cascadelake", "vnni"),
        Processor(LINUX_X86, "sapphirerapids", "vnni", "avx512"),
    )
}


def tiles(processor: Processor) -> Iterator[tuple[str, int, Any]]:
    """Yield each tile: its name, how many rows it has, and the primitive."""
    for rows in (1, 2, 4, 8):
        for form in FORMATS:
            yield form, rows, quantized_tile(rows, processor.dot)[form]
        yield "values", rows, values_tile(rows, processor.dot)
        yield "values of a span", rows, span_tile(rows, processor.dot)
        yield "latents", rows, latents_tile(rows, processor.dot)
    if processor.dot == "vnni":
        for rows in (4, 6):
            for form in FORMATS:
                yield f"{form} x 2", rows, paired_tile(rows, processor.dot)[form]
    for rows, columns in ((1, 1), (2, 2), (4, 6)):
        yield f"pairs x {columns}", rows, pair_tile(rows, columns, processor.pairs)
        for dtype in ("float32", "bfloat16"):
            yield f"{dtype} x {columns}", rows, dot_tile(rows, columns)[dtype]
    for rows, vectors in ((1, 2), (4, 2), (6, 4)):
        yield f"outer x {16 * vectors}", rows, outer_tile(rows, vectors, 4 if processor.dot in ARM else 24)["float32"]


def assembly(tile: Any, processor: Processor) -> str:
    """Return what LLVM makes of a tile."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple(processor.triple)
    machine = target.create_target_machine(cpu=processor.cpu, features=processor.features, opt=3, codemodel="default")
    arguments = [types.int64] * (len(tile._defn.__signature__.parameters) - 1)
    (signature, emit), module = tile._defn(None, *arguments), ir.Module()
    module.triple, module.data_layout = processor.triple, str(machine.target_data)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ll.I64] * len(arguments)), "tile")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    emit(cpu_target.target_context, b, signature, function.args)
    b.ret_void()
    function.attributes.clear()  # what this processor can do
    fastmathpass.rewrite_module(module, SimpleNamespace(flags=CONTRACT))
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    passes = create_pass_builder(machine, opt=3, loop_vectorize=True)
    passes.getModulePassManager().run(parsed, passes)
    return str(machine.emit_assembly(parsed))


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop.

    Attributes:
        lines: Its instructions.
    """

    lines: list[str]

    def count(self, pattern: str) -> int:
        """Return how many instructions have such a name."""
        return sum(re.fullmatch(pattern, name_of(line)) is not None for line in self.lines)

    @property
    def loads(self) -> int:
        """How many instructions read memory."""
        return sum(touches_memory(line) and not is_store(line) for line in self.lines)

    @property
    def stores(self) -> int:
        """How many instructions write it."""
        return sum(touches_memory(line) and is_store(line) for line in self.lines)

    @property
    def stack(self) -> int:
        """How many instructions read or write the stack."""
        return sum(re.search(r"\[sp\b|%rsp|%rbp|Spill|Reload", line) is not None for line in self.lines)


def name_of(line: str) -> str:
    """Return the name of an instruction, without what macOS says there about lanes."""
    return line.split()[0].partition(".")[0]


def touches_memory(line: str) -> bool:
    """Return whether an instruction has an operand in memory, and wants what is there."""
    return re.search(r"\[(x\d|sp\b)|\(%\w", line) is not None and not re.match(r"prf|lea|prefetch|add|sub", line)


def is_store(line: str) -> bool:
    """Return whether that operand is written."""
    return re.match(r"st|v?mov.*\)(\s*#.*)?$", line) is not None


def inner_loop(code: str) -> Loop:
    """Return the loop that has most products, of several such the shortest."""
    lines: list[str] = []
    labels: dict[str, int] = {}
    found: list[Loop] = []
    for line in code.splitlines():
        if label := re.match(r"([.\w$]+):", line):
            labels[label[1]] = len(lines)
        elif re.match(r"\s+[a-z]", line):
            lines.append(line.strip())
            target = re.search(r"\.?L\w+$", re.sub(r"\s*(//|;|#).*", "", line.strip()))
            if target and target[0] in labels:
                found.append(Loop(lines[labels[target[0]] :]))
    return max(found, key=lambda loop: (loop.count(PRODUCTS), -len(loop.lines)))


def table(processor: Processor) -> Iterator[str]:
    """Yield a line for each tile."""
    yield f"{processor.cpu}, {processor.triple}: {processor.dot}, {processor.pairs} for bfloat16"
    yield f"{'tile':>20} {'rows':>4} {'all':>6} {'products':>8} {'loads':>6} {'stores':>6} {'stack':>6} {'a row':>6}"
    for name, rows, tile in tiles(processor):
        loop = inner_loop(assembly(tile, processor))
        counts = len(loop.lines), loop.count(PRODUCTS), loop.loads, loop.stores, loop.stack
        yield "{:>20} {:>4} {:>6} {:>8} {:>6} {:>6} {:>6} {:>6.0f}".format(name, rows, *counts, counts[0] / rows)


def shown(processor: Processor, name: str, rows: str) -> list[str]:
    """Return the loop of one tile.

    Raises:
        SystemExit: There is no such tile.
    """
    found = [tile for its_name, its_rows, tile in tiles(processor) if (its_name, str(its_rows)) == (name, rows)]
    if not found:
        raise SystemExit(f"assembly.py: there is no tile {name} of {rows} rows: the table has all")
    return inner_loop(assembly(found[0], processor)).lines


def main() -> None:
    """Print tables, or a loop."""
    parser = argparse.ArgumentParser(description="Inner loops of the register tiles on other processors.")
    parser.add_argument("processors", nargs="*", help=f"of {', '.join(PROCESSORS)}; all by default")
    parser.add_argument("--show", nargs=2, metavar=("TILE", "ROWS"), help="print the loop of one tile")
    given = parser.parse_args()
    if unknown := [name for name in given.processors if name not in PROCESSORS]:
        parser.error(f"{unknown[0]} is none of {', '.join(PROCESSORS)}")
    for name in given.processors or PROCESSORS:
        processor = PROCESSORS[name]
        for line in table(processor) if given.show is None else shown(processor, *given.show):
            print(line)


if __name__ == "__main__":
    main()
