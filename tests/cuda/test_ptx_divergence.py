"""Random programs of branches and loops: lanes that go their own ways find what Python finds for each one alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from snippets import run

COUNT = 4  # registers %r1 to %r4
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add.u32": lambda a, b: a + b,
    "sub.u32": lambda a, b: a - b,
    "xor.b32": lambda a, b: a ^ b,
    "mul.lo.u32": lambda a, b: a * b,
    "min.u32": min,
    "shr.u32": lambda a, b: a >> min(b, 32),
}
registers = st.integers(1, COUNT)
sets = st.tuples(st.just("set"), registers, st.sampled_from(list(OPERATIONS)), registers, registers)
guarded = st.tuples(st.just("guarded"), registers, st.integers(0, 3), sets)
leaves = st.one_of(sets, guarded, st.tuples(st.just("break"), registers, st.integers(0, 7)),
                   st.tuples(st.just("exit"), registers, st.integers(0, 31)), st.just(("warp",)))  # fmt: skip


def nested(inner):
    body = st.lists(inner, min_size=1, max_size=4)
    return st.one_of(
        st.tuples(st.just("if"), registers, st.integers(0, 3), body, body),
        st.tuples(st.just("loop"), registers, body),
    )


programs = st.lists(st.recursive(leaves, nested, max_leaves=12), min_size=1, max_size=6)


class Leave(Exception):
    """A lane exits."""


class Break(Exception):
    """A lane leaves a loop."""


@dataclass
class Writer:
    """Turns a program into PTX."""

    lines: list[str] = field(default_factory=list)
    labels: int = 0

    def label(self) -> str:
        self.labels += 1
        return f"L{self.labels}"

    def test(self, register: int, low: int) -> None:
        self.lines.append(f"and.b32 %r20, %r{register}, {low | 1}; setp.eq.u32 %p1, %r20, {low & (low | 1)};")

    def write(self, body: list[Any], out: str) -> None:
        """Write statements; a break goes to a label."""
        for kind, *rest in body:
            if kind == "set":
                target, name, a, b = rest
                self.lines.append(f"{name} %r{target}, %r{a}, %r{b};")
            elif kind == "guarded":
                self.test(rest[0], rest[1])
                _, target, name, a, b = rest[2]
                self.lines.append(f"@!%p1 {name} %r{target}, %r{a}, %r{b};")
            elif kind == "break" and out:
                self.test(rest[0], rest[1])
                self.lines.append(f"@%p1 bra {out};")
            elif kind == "exit":
                self.test(rest[0], rest[1])
                self.lines.append("@%p1 bra END;")
            elif kind == "warp":
                self.lines.append("activemask.b32 %r21; vote.sync.any.pred %p2, %p1, %r21;")
            elif kind == "if":
                other, end = self.label(), self.label()
                self.test(rest[0], rest[1])
                self.lines.append(f"@%p1 bra {other};")
                self.write(rest[2], out)
                self.lines.append(f"bra {end}; {other}:")
                self.write(rest[3], out)
                self.lines.append(f"{end}:")
            elif kind == "loop":
                top, end, counter = self.label(), self.label(), f"%r{30 + self.labels}"
                self.lines.append(f"and.b32 {counter}, %r{rest[0]}, 3; {top}: setp.eq.u32 %p1, {counter}, 0;")
                self.lines.append(f"@%p1 bra {end}; sub.u32 {counter}, {counter}, 1;")
                self.write(rest[1], end)
                self.lines.append(f"bra {top}; {end}:")


def one_lane(body: list[Any], r: list[int], in_loop: bool = False) -> None:
    """Do a program for one lane."""

    def holds(register: int, low: int) -> bool:
        return r[register] & (low | 1) == low & (low | 1)

    for kind, *rest in body:
        if kind == "set":
            target, name, a, b = rest
            r[target] = OPERATIONS[name](r[a], r[b]) % 2**32
        elif kind == "guarded" and not holds(rest[0], rest[1]):
            one_lane([rest[2]], r)
        elif kind == "break" and in_loop and holds(rest[0], rest[1]):
            raise Break
        elif kind == "exit" and holds(rest[0], rest[1]):
            raise Leave
        elif kind == "if":
            one_lane(rest[3] if holds(rest[0], rest[1]) else rest[2], r, in_loop)
        elif kind == "loop":
            try:
                for _ in range(r[rest[0]] & 3):
                    one_lane(rest[1], r, True)
            except Break:
                pass


@given(program=programs, block=st.sampled_from((1, 32, 45, 64)), seed=st.integers(0, 99), together=st.booleans())
def test_every_lane_finds_what_it_would_alone(program, block, seed, together):
    grid = 3
    x = np.random.default_rng(seed).integers(0, 2**32, (grid * block, COUNT), "u8").astype("u4")
    writer = Writer()
    writer.write(program, "")
    body = "\n".join(writer.lines)
    y = x.copy()
    code = f""".reg .b32 %r<400>;
    mov.u32 %r10, %ctaid.x; mov.u32 %r11, %ntid.x; mov.u32 %r12, %tid.x; mad.lo.u32 %r10, %r10, %r11, %r12;
    mul.wide.u32 %rd1, %r10, 16; add.s64 %rd1, %rd0, %rd1; ld.global.v4.u32 {{%r1, %r2, %r3, %r4}}, [%rd1];
    setp.eq.u32 %p1, %r1, %r1;
    {body}
    END: st.global.v4.u32 [%rd1], {{%r1, %r2, %r3, %r4}};"""
    run("{" + code + "}", [y], grid=grid, block=block, width=4096 if together else 32, assembles=False)
    for before, after in zip(x.tolist(), y.tolist(), strict=True):
        r = [0, *before]
        try:
            one_lane(program, r)
        except Leave:
            pass
        assert r[1:] == after
