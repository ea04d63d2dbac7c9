"""Operations of a warp, against loops over lanes."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import BarrierFault
from snippets import compute, run

WARPS = np.arange(96, dtype="u4") % 32


def inputs(seed=1, count=96, most=2**32):
    return np.random.default_rng(seed).integers(0, most, count, "u8").astype("u4")


def partner(mode, lane, b, c):
    """The definition of NVIDIA's manual: the lane that is read, and the predicate."""
    b, clamp, segment = b & 31, c & 31, c >> 8 & 31
    last, first = lane & segment | clamp & ~segment, lane & segment
    if mode == "up":
        source = lane - b
        inside = source >= last
    elif mode == "down":
        source = lane + b
        inside = source <= last
    elif mode == "bfly":
        source = lane ^ b
        inside = source <= last
    else:
        source = first | b & ~segment
        inside = source <= last
    return (source if inside else lane), inside


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("segment", [0, 0b11000, 0b10000])
def test_shuffles(mode, segment):
    x = inputs()
    clamp = segment << 8 | (0 if mode == "up" else 31)
    for b in (1, 5, 16):
        found, flags = compute(
            f"shfl.sync.{mode}.b32 %d0|%p0, %a, {b}, {clamp}, -1; selp.u32 %d1, 1, 0, %p0;", x, results=2
        )
        for n in range(96):
            source, inside = partner(mode, n % 32, b, clamp)
            assert found[n] == x[n // 32 * 32 + source] and flags[n] == inside
    by = inputs(2, most=64)
    found = compute(f"shfl.sync.{mode}.b32 %d, %a, %b, {clamp}, 0xffffffff;", x, by)
    assert found.tolist() == [x[n // 32 * 32 + partner(mode, n % 32, int(by[n]), clamp)[0]] for n in range(96)]


def test_shuffles_of_a_part_of_a_warp():
    x = inputs()
    code = """mov.u32 %r1, %laneid; mov.u32 %d, 0; setp.lt.u32 %p0, %r1, 12; mov.u32 %r9, 0xfff;
    @%p0 shfl.sync.bfly.b32 %d, %a, 1, 0x1f, %r9;"""
    found = compute(code, x)
    assert found.tolist() == [x[n ^ 1] if n % 32 < 12 else 0 for n in range(96)]


def test_a_lane_that_takes_no_part_gives_nothing():
    """A GPU gives anything; here it is a NaN that stands out."""
    code = """mov.u32 %r1, %laneid; mov.u32 %d, 0; setp.lt.u32 %p0, %r1, 12; mov.u32 %r9, 0xfff;
    @%p0 shfl.sync.idx.b32 %d, %a, 20, 0x1f, %r9;"""
    assert compute(code, inputs()).tolist() == [0xFFFFA5A5 if n % 32 < 12 else 0 for n in range(96)]


def test_lanes_wait_for_those_that_take_another_way():
    """The shuffle stands above what some lanes do first: they come back to it, and the others wait."""
    code = """mov.u32 %r1, %laneid; mov.u32 %r2, %a; mov.u32 %d, 0; mov.u32 %r5, 0;
    and.b32 %r3, %r1, 3; setp.eq.u32 %p0, %r3, 1; @%p0 bra AWAY;
    BACK: shfl.sync.down.b32 %r4, %r2, 1, 0x1f, -1; add.u32 %d, %d, %r4; add.u32 %r5, %r5, 1;
    setp.lt.u32 %p1, %r5, 3; @!%p1 bra END; bra BACK;
    AWAY: add.u32 %r2, %r2, 100; bra BACK;
    END: """
    x = inputs(3, most=1000)
    moved = [int(v) + (100 if n % 4 == 1 else 0) for n, v in enumerate(x)]
    assert compute(code, x).tolist() == [3 * (moved[n + 1] if n % 32 < 31 else moved[n]) for n in range(96)]


def test_lanes_that_never_come():
    code = """mov.u32 %r1, %laneid; mov.u32 %d, 0; setp.lt.u32 %p0, %r1, 20; @!%p0 bra OTHER;
    shfl.sync.idx.b32 %d, %a, 0, 0x1f, -1; bra END;
    OTHER: shfl.sync.idx.b32 %d, %a, 1, 0x1f, -1;
    END: """
    with pytest.raises(BarrierFault, match=r"waits for lanes of its warp, which never come \(12 at line \d+\)\nkernel"):
        compute(code, inputs())
    with pytest.raises(BarrierFault, match=r"lane 3 of warp 0 is not in the mask 0x7 of lanes of its own operation"):
        compute("mov.u32 %r9, 7; shfl.sync.idx.b32 %d, %a, 0, 0x1f, %r9;", inputs())


def test_lanes_that_have_exited_are_not_waited_for():
    x = inputs(4, 64)
    y = np.zeros(64, "u4")
    code = """mov.u32 %r0, %tid.x; mul.wide.u32 %rd9, %r0, 4; add.s64 %rd2, %rd0, %rd9; add.s64 %rd1, %rd1, %rd9;
    and.b32 %r1, %r0, 31; setp.gt.u32 %p0, %r1, 20; setp.gt.u32 %p1, %r1, 18; @%p1 bra L;
    ld.global.u32 %r2, [%rd2]; {op} st.global.u32 [%rd1], %r3; exit;
    L: @%p0 exit; ld.global.u32 %r2, [%rd2]; {op} st.global.u32 [%rd1], %r3;"""
    run(code.replace("{op}", "shfl.sync.bfly.b32 %r3, %r2, 1, 0x1f, 0x1fffff;").replace("0x1fffff", "%r9").replace(
        "mov.u32 %r0, %tid.x;", "mov.u32 %r0, %tid.x; mov.u32 %r9, 0x7ffff;"
    ).replace("L: @%p0 exit; ld.global.u32 %r2, [%rd2]; shfl.sync.bfly.b32 %r3, %r2, 1, 0x1f, %r9;",
              "L: @%p0 exit; mov.u32 %r3, 5;"), [x, y], block=64)  # fmt: skip
    assert y.tolist()[:18] == [int(x[n ^ 1]) for n in range(18)] and y.tolist()[19:22] == [5, 5, 0]
    late = """mov.u32 %r0, %tid.x; setp.gt.u32 %p0, %r0, 20; @%p0 bra L; vote.sync.ballot.b32 %r3, %p0, -1;
    vote.sync.ballot.b32 %r4, !%p0, -1; mul.wide.u32 %rd9, %r0, 4; add.s64 %rd1, %rd1, %rd9; st.global.u32 [%rd1], %r4;
    exit; L: exit;"""
    run(late, [x, y], block=32)
    assert y[:21].tolist() == [0x1FFFFF] * 21


def test_votes():
    x = inputs(5, most=4)
    x[32:64] = 1
    bits = [[int(x[w * 32 + n] == 1) for n in range(32)] for w in range(3)]
    head = "setp.eq.u32 %p0, %a, 1;"
    found = compute(f"{head} vote.sync.ballot.b32 %d, %p0, -1;", x)
    assert found.tolist() == [sum(bit << n for n, bit in enumerate(bits[w])) for w in range(3) for _ in range(32)]
    for mode, function in (("all", all), ("any", any), ("uni", lambda row: len(set(row)) == 1)):
        found = compute(f"{head} vote.sync.{mode}.pred %d, %p0, -1;", x, out="?")
        assert found.tolist() == [function(bits[w]) for w in range(3) for _ in range(32)]
        found = compute(f"{head} vote.sync.{mode}.pred %d, !%p0, -1;", x, out="?")
        assert found.tolist() == [function([1 - bit for bit in bits[w]]) for w in range(3) for _ in range(32)]


def test_votes_of_groups():
    """Two groups of a warp vote apart."""
    x = inputs(6, most=2)
    code = """mov.u32 %r1, %laneid; and.b32 %r2, %r1, 1; setp.eq.u32 %p1, %r2, 0; setp.ne.u32 %p0, %a, 0;
    selp.b32 %r3, 0x55555555, 0xaaaaaaaa, %p1; @%p1 vote.sync.ballot.b32 %d, %p0, %r3;
    @!%p1 vote.sync.ballot.b32 %d, %p0, %r3;"""
    found = compute(code, x)
    for n in range(96):
        group = [m for m in range(32) if m % 2 == n % 2]
        assert found[n] == sum(int(x[n // 32 * 32 + m]) << m for m in group)


@pytest.mark.parametrize("kind", ["b32", "b64"])
def test_matches(kind):
    x = inputs(7, most=5)
    x[32:64] = 3
    wide = f"cvt.u64.u32 %rd9, %a; shl.b64 %rd9, %rd9, {33 if kind == 'b64' else 0};"
    source = "%rd9" if kind == "b64" else "%a"
    found = compute(f"{wide} match.any.sync.{kind} %d, {source}, -1;", x)
    for n in range(96):
        assert found[n] == sum(int(x[n // 32 * 32 + m] == x[n]) << m for m in range(32))
    found, same = compute(f"{wide} match.all.sync.{kind} %d0|%p0, {source}, -1; selp.u32 %d1, 1, 0, %p0;", x, results=2)
    assert found.tolist() == [0] * 32 + [2**32 - 1] * 32 + [0] * 32 and same.tolist() == [0] * 32 + [1] * 32 + [0] * 32


@pytest.mark.parametrize("name", ["add", "min", "max", "and", "or", "xor"])
@pytest.mark.parametrize("kind", ["u32", "s32"])
def test_reductions(name, kind):
    if name in ("and", "or", "xor"):
        kind = "b32"
    x = inputs(8)
    functions = {"add": sum, "min": min, "max": max}
    bits = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
    found = compute(f"redux.sync.{name}.{kind} %d, %a, -1;", x)
    values = x.view("i4" if kind == "s32" else "u4").tolist()
    for w in range(3):
        row = values[w * 32 : w * 32 + 32]
        expected = functions[name](row) % 2**32 if name in functions else int(bits[name].reduce(np.array(row, "u4")))
        assert set(found[w * 32 : w * 32 + 32].tolist()) == {expected}
    part = "mov.u32 %r1, %laneid; mov.u32 %d, 0; setp.lt.u32 %p0, %r1, 7; mov.u32 %r9, 0x7f;"
    found = compute(f"{part} @%p0 redux.sync.{name}.{kind} %d, %a, %r9;", x)
    row = values[:7]
    expected = functions[name](row) % 2**32 if name in functions else int(bits[name].reduce(np.array(row, "u4")))
    assert found[:9].tolist() == [expected] * 7 + [0, 0]


def test_elections_and_who_is_active():
    code = """mov.u32 %r1, %laneid; mov.u32 %d0, 99; mov.u32 %d1, 0; setp.gt.u32 %p0, %r1, 4; mov.u32 %r9, 0xffffffe0;
    @!%p0 bra END; elect.sync %d0|%p1, %r9; selp.u32 %d1, 1, 0, %p1; activemask.b32 %r2; setp.ne.u32 %p2, %r2, %r9;
    @%p2 trap; END: """
    leader, chosen = compute(code, WARPS, results=2)
    assert leader.tolist() == [99 if n % 32 < 5 else 5 for n in range(96)]
    assert chosen.tolist() == [int(n % 32 == 5) for n in range(96)]


def test_a_warp_of_which_lanes_have_no_thread():
    x = inputs(9, 45)
    y = np.zeros(45, "u4")
    code = """mov.u32 %r0, %tid.x; mul.wide.u32 %rd9, %r0, 4; add.s64 %rd2, %rd0, %rd9; add.s64 %rd1, %rd1, %rd9;
    ld.global.u32 %r2, [%rd2]; bar.warp.sync -1; redux.sync.add.u32 %r3, %r2, -1; st.global.u32 [%rd1], %r3;"""
    run(code, [x, y], block=45)
    for n in range(45):
        assert y[n] == x[n // 32 * 32 : min(n // 32 * 32 + 32, 45)].sum(dtype="u4")
