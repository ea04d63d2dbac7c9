"""cp.async: sizes, zeros, groups, and what is forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import MemoryFault, RaceFault, UnknownInstruction
from snippets import run

BOX = ".shared .align 16 .b8 box[4096];\n"
HEAD = """mov.u32 %r0, %tid.x; mov.u32 %r1, box; mad.lo.u32 %r2, %r0, {size}, %r1; mul.wide.u32 %rd9, %r0, {size};
    add.s64 %rd8, %rd0, %rd9; add.s64 %rd7, %rd1, %rd9;"""


@pytest.mark.parametrize(("size", "cache"), [(4, "ca"), (8, "ca"), (16, "ca"), (16, "cg")])
def test_sizes(size, cache):
    x = np.random.default_rng(1).integers(0, 256, (32, size), "u1")
    y = np.zeros_like(x)
    items = ["%r5", "{%r5, %r6}", "{%r5, %r6, %r7, %r8}"][size // 8]
    word = ["", ".v2", ".v4"][size // 8]
    code = (
        HEAD.format(size=size)
        + f"""cp.async.{cache}.shared.global [%r2], [%rd8], {size}; cp.async.wait_all;
    ld.shared{word}.u32 {items}, [%r2]; st.global{word}.u32 [%rd7], {items};"""
    )
    run(code, [x, y], before=BOX)
    assert (x == y).all()


@pytest.mark.parametrize("size", [4, 8, 16])
def test_what_is_not_copied_is_zero(size):
    """Lane n copies n mod (size + 1) bytes; what lies beyond may lie outside of memory."""
    x = np.random.default_rng(2).integers(1, 256, (33, size), "u1")
    y = np.ones((33, size), "u1")
    code = (
        HEAD.format(size=size)
        + f"""rem.u32 %r3, %r0, {size + 1};
    cp.async.ca.shared.global.L2::128B [%r2], [%rd8], {size}, %r3; cp.async.commit_group; cp.async.wait_group 0;
    mov.u32 %r10, 0; L: add.u32 %r11, %r2, %r10; cvt.u64.u32 %rd10, %r10; add.s64 %rd10, %rd7, %rd10;
    ld.shared.u8 %r12, [%r11]; st.global.u8 [%rd10], %r12; add.u32 %r10, %r10, 1;
    setp.lt.u32 %p0, %r10, {size}; @%p0 bra L;"""
    )
    run(code, [x, y], before=BOX, block=33)
    for n in range(33):
        count = n % (size + 1)
        assert y[n].tolist() == [*x[n, :count].tolist(), *[0] * (size - count)]
    masked = "setp.ge.u32 %p0, %r0, 7; setp.lt.u32 %p1, %r0, 7; cp.async.ca.shared.global [%r2], [%rd8], 4, %p0;"
    small, out = np.arange(7, dtype="u4") + 1, np.zeros(32, "u4")
    run(HEAD.format(size=4) + masked + "cp.async.wait_all; ld.shared.u32 %r3, [%r2]; st.global.u32 [%rd7], %r3;",
        [small, out], before=BOX)  # fmt: skip
    assert out.tolist() == [*range(1, 8), *[0] * 25]


PIPE = """cp.async.ca.shared.global [%r2], [%rd8], 4; cp.async.commit_group;
    cp.async.ca.shared.global [%r2+512], [%rd8+128], 4; cp.async.commit_group;
    cp.async.ca.shared.global [%r2+1024], [%rd8+256], 4; {commit}
    cp.async.wait_group {left}; ld.shared.u32 %r5, [%r2+{place}]; st.global.u32 [%rd7], %r5;"""


@pytest.mark.parametrize("left", [0, 1, 2, 3])
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("commits", [True, False])
def test_groups_are_waited_for_in_their_order(left, number, commits):
    x, y = np.arange(96, dtype="u4"), np.zeros(32, "u4")
    commit = "cp.async.commit_group;" if commits else ""
    code = HEAD.format(size=4) + PIPE.format(left=left, place=512 * number, commit=commit)
    if number < (3 if commits else 2) - left:
        run(code, [x, y], before=BOX)
        assert y.tolist() == list(range(32 * number, 32 * number + 32))
    else:
        with pytest.raises(MemoryFault, match=r"or whose copy by cp.async was not waited for"):
            run(code, [x, y], before=BOX)


def test_each_lane_has_groups_of_its_own():
    """Lanes 0 to 15 close a second group, so that all but one of their groups are one, and there is none for others."""
    code = (
        HEAD.format(size=4)
        + """setp.lt.u32 %p0, %r0, 16; cp.async.ca.shared.global [%r2], [%rd8], 4;
    cp.async.commit_group; @%p0 cp.async.commit_group; cp.async.wait_group 1; {guard} ld.shared.u32 %r5, [%r2];
    {guard} st.global.u32 [%rd7], %r5;"""
    )
    x, y = np.arange(32, dtype="u4") + 1, np.zeros(32, "u4")
    run(code.format(guard="@%p0"), [x, y], before=BOX)
    assert y.tolist() == [*range(1, 17), *[0] * 16]
    with pytest.raises(MemoryFault, match=r"thread \(16, 0, 0\).*whose copy by cp.async was not waited for"):
        run(code.format(guard="@!%p0"), [x, y], before=BOX)


def test_what_was_there_before_is_not_read_either():
    code = (
        HEAD.format(size=4)
        + """st.shared.u32 [%r2], %r0; cp.async.ca.shared.global [%r2], [%rd8], 4;
    cp.async.commit_group; {wait} ld.shared.u32 %r5, [%r2]; st.global.u32 [%rd7], %r5;"""
    )
    x, y = np.arange(32, dtype="u4") * 5, np.zeros(32, "u4")
    with pytest.raises(MemoryFault, match=r"thread \(0, 0, 0\).*whose copy by cp.async was not waited for\nkernel"):
        run(code.format(wait=""), [x, y], before=BOX)
    run(code.format(wait="cp.async.wait_group 0;"), [x, y], before=BOX)
    assert (x == y).all()


def test_a_wait_is_for_the_lane_alone():
    """Other warps see what was copied after a barrier."""
    code = (
        HEAD.format(size=4)
        + """cp.async.ca.shared.global [%r2], [%rd8], 4; cp.async.wait_all; {barrier}
    xor.b32 %r3, %r0, 32; mad.lo.u32 %r3, %r3, 4, %r1; ld.shared.u32 %r5, [%r3]; st.global.u32 [%rd7], %r5;"""
    )
    x, y = np.arange(64, dtype="u4"), np.zeros(64, "u4")
    with pytest.raises(RaceFault, match="another warp wrote with no barrier between"):
        run(code.format(barrier=""), [x, y], before=BOX, block=64)
    run(code.format(barrier="bar.sync 0;"), [x, y], before=BOX, block=64)
    assert y.tolist() == [n ^ 32 for n in range(64)]
    some = code.replace("cp.async.wait_all;", "setp.lt.u32 %p0, %r0, 32; @!%p0 bra S; cp.async.wait_all; S: ")
    with pytest.raises(MemoryFault, match="was not waited for"):
        run(some.format(barrier="bar.sync 0;"), [x, y], before=BOX, block=64)


def test_addresses_are_checked_where_the_copy_begins():
    copy = HEAD.format(size=16) + "cp.async.cg.shared.global [%r2+{to}], [%rd8+{source}], 16; cp.async.wait_all;"
    x = np.zeros((32, 16), "u1")
    for to, source, message in (
        (0, 16, r"thread \(31, 0, 0\).*reads 16 bytes at .*out of bounds.*\nkernel kernel, line \d+: cp.async.cg"),
        (0, 8, "reads 16 bytes at .*misaligned"),
        (4, 0, "writes 16 bytes of shared memory at 0x4: misaligned"),
        (4096, 0, "writes 16 bytes of shared memory at 0x1000: out of bounds"),
    ):
        with pytest.raises(MemoryFault, match=message):
            run(copy.format(to=to, source=source), [x, x.copy()], before=BOX)


def test_what_there_is_not():
    for code in (
        "cp.async.cg.shared.global [%r2], [%rd8], 8;",
        "cp.async.ca.shared.global [%r2], [%rd8], 12;",
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd8], 16, [%r1];",
    ):
        with pytest.raises(UnknownInstruction, match=rf"{code.split()[0]} is not implemented"):
            run(HEAD.format(size=4) + code, [np.zeros(8), np.zeros(8)], before=BOX)
