"""Instructions of ARM as their manual describes them, in plain LLVM code: for processors that lack them.

with by_hand("i8mm"):
    ...  # tiles that are compiled here multiply in this way
"""

import contextlib
import functools

import pytest
from llvmlite import ir

from pio.kernels import _llvm as ll
from pio.kernels._processor import compiles_for
from pio.kernels._quarters import ARM
from pio.system import HERE

PLAIN = ll.function
NEEDS = {"neon": (), "sdot": ("dotprod",), "i8mm": ("dotprod", "i8mm")}
NATIVE = [dot for dot in ARM if HERE.machine == "aarch64" and all(map(compiles_for, NEEDS[dot]))]


def lanes(b, vector, kind="sext", ty=ll.I32):
    """The lanes of a vector, widened."""
    found = (b.extract_element(vector, ir.Constant(ll.I32, i)) for i in range(vector.type.count))
    return [getattr(b, kind)(value, ty) for value in found]


def vector(b, ty, values):
    made = ir.Constant(ty, ir.Undefined)
    for i, value in enumerate(values):
        made = b.insert_element(made, value, ir.Constant(ll.I32, i))
    return made


def total(b, values):
    return functools.reduce(b.add, values)


def dots(b, name, out, x, y):
    """Of each lane four products; of matrices each of two rows' eight products with each of two columns'."""
    left, right = lanes(b, x, "zext" if name.startswith("us") else "sext"), lanes(b, y)
    if "mmla" in name:
        pairs = [(left[8 * i : 8 * i + 8], right[8 * j : 8 * j + 8]) for i in range(2) for j in range(2)]
    else:
        pairs = [(left[4 * i : 4 * i + 4], right[4 * i : 4 * i + 4]) for i in range(4)]
    old = [b.extract_element(out, ir.Constant(ll.I32, i)) for i in range(4)]
    return [total(b, [a, *map(b.mul, *pair)]) for a, pair in zip(old, pairs, strict=True)]


def smull(b, _, x, y):
    return [*map(b.mul, lanes(b, x, ty=ll.I16), lanes(b, y, ty=ll.I16))]


def addp(b, _, x, y):
    found = [b.extract_element(v, ir.Constant(ll.I32, i)) for v in (x, y) for i in range(8)]
    return [b.add(*found[i : i + 2]) for i in range(0, 16, 2)]


def saddlp(b, _, x):
    found = lanes(b, x)
    return [b.add(*found[i : i + 2]) for i in range(0, 8, 2)]


WAYS = {"dot": dots, "mmla": dots, "smull": smull, "addp": addp, "saddlp": saddlp}


def function(b, name, result, arguments):
    """What ``ll.function`` returns, but those instructions as functions of plain LLVM code."""
    short = name.removeprefix("llvm.aarch64.neon.").partition(".")[0]
    way = next((WAYS[end] for end in WAYS if short.endswith(end)), None)
    if short == name or way is None:
        return PLAIN(b, name, result, arguments)
    found = b.module.globals.get(f"{short}_by_hand")
    if found is None:
        found = ir.Function(b.module, ir.FunctionType(result, arguments), f"{short}_by_hand")
        found.linkage = "internal"
        found.attributes.add("noinline")
        c = ir.IRBuilder(found.append_basic_block())
        c.ret(vector(c, result, way(c, short, *found.args)))
    return found


@contextlib.contextmanager
def by_hand(dot):
    """Have ARM's instructions be such functions, where this processor does not have those of a way to multiply."""
    with pytest.MonkeyPatch.context() as patch:
        if dot in ARM and dot not in NATIVE:
            patch.setattr(ll, "function", function)
        yield
