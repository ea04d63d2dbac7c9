"""Shared and local memory, generic addresses, variables, and races of warps and of blocks."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import Fault, Memory, MemoryFault, Module, RaceFault
from snippets import kernel, run

SHARED = ".shared .align 16 .b8 box[512];\n"
REVERSE = """mov.u32 %r0, %tid.x; mov.u32 %r1, box; mad.lo.u32 %r2, %r0, 4, %r1; st.shared.u32 [%r2], %r0; {barrier}
    mov.u32 %r3, %ntid.x; sub.u32 %r3, %r3, %r0; sub.u32 %r3, %r3, 1; mad.lo.u32 %r4, %r3, 4, %r1;
    ld.shared.u32 %r5, [%r4]; mul.wide.u32 %rd9, %r0, 4; add.s64 %rd9, %rd0, %rd9; mov.u32 %r6, %ctaid.x;
    mov.u32 %r7, %ntid.x; mul.lo.u32 %r6, %r6, %r7; mul.wide.u32 %rd8, %r6, 4; add.s64 %rd9, %rd9, %rd8;
    st.global.u32 [%rd9], %r5;"""


@pytest.mark.parametrize("block", [64, 96, 77])
def test_shared_memory_belongs_to_a_block(block):
    y = np.zeros((5, block), "u4")
    run(REVERSE.format(barrier="bar.sync 0;"), [y], grid=5, block=block, before=SHARED)
    assert (y == np.arange(block)[::-1]).all()


def test_dynamic_shared_memory_follows_the_static_one():
    before = ".shared .align 4 .b8 small[20];\n.extern .shared .align 16 .b8 box[];\n"
    code = REVERSE.format(barrier="bar.sync 0;")
    code += "mov.u32 %r9, small; st.shared.u32 [small+16], %r9; mov.u32 %r10, box; st.global.u32 [%rd1], %r10;"
    y, place = np.zeros(64, "u4"), np.zeros(1, "u4")
    run(code, [y, place], block=64, shared=256, before=before)
    assert y.tolist() == list(range(64))[::-1] and place[0] == 32
    with pytest.raises(MemoryFault, match=r"writes 4 bytes of shared memory at 0x11c: out of bounds \(there are 284"):
        run(code, [y, place], block=64, shared=252, before=before)


def test_a_missing_barrier_is_a_race():
    with pytest.raises(RaceFault, match=r"reads 4 bytes of shared memory that another warp wrote with no barrier"):
        run(REVERSE.format(barrier=""), [np.zeros(64, "u4")], block=64, before=SHARED)
    run(REVERSE.format(barrier=""), [np.zeros(64, "u4")], block=64, before=SHARED, races=False)
    run(REVERSE.format(barrier=""), [np.zeros(32, "u4")], block=32, before=SHARED)  # one warp


def test_writing_what_others_read_before_is_a_race():
    code = REVERSE.format(barrier="bar.sync 0;") + "{barrier} st.shared.u32 [%r2], %r5;"
    with pytest.raises(RaceFault, match="writes 4 bytes of shared memory that another warp read with no barrier"):
        run(code.replace("{barrier}", ""), [np.zeros(64, "u4")], block=64, before=SHARED)
    run(code.replace("{barrier}", "bar.sync 0;"), [np.zeros(64, "u4")], block=64, before=SHARED)


def test_all_may_read_one_place_and_a_warp_its_own():
    code = """mov.u32 %r0, %tid.x; mov.u32 %r1, 7; setp.eq.u32 %p0, %r0, 0; @%p0 st.shared.u32 [box], %r1; bar.sync 0;
    ld.shared.u32 %r2, [box]; ld.shared.u16 %r3, [box]; {write}"""
    run(code.format(write=""), block=96, before=SHARED)
    with pytest.raises(RaceFault, match="another warp read"):
        run(code.format(write="@%p0 st.shared.u8 [box+1], %r1;"), block=96, before=SHARED)
    own = "st.shared.u32 [%r9], %r1; ld.shared.u8 %r2, [%r9]; ld.shared.u32 %r2, [%r9]; st.shared.u32 [%r9], %r2;"
    alone = code.replace("{write}", own).replace("bar.sync 0;", "mad.lo.u32 %r9, %r0, 4, 64; bar.sync 0;")
    run(alone, block=96, before=SHARED)


READS = """mov.u32 %r0, %tid.x; setp.eq.u32 %p0, %r0, 0; setp.eq.u32 %p1, %r0, 32; mov.u32 %r1, 7;
    @%p0 st.shared.u32 [box], %r1; bar.sync 0;"""


@pytest.mark.parametrize(("byte", "races"), [(0, True), (1, False)])
def test_bytes_that_several_read(byte, races):
    """One warp reads a byte, then another the word around it, and writes a byte of that."""
    code = READS + f"@%p0 ld.shared.u8 %r2, [box]; @%p1 ld.shared.u32 %r2, [box]; @%p1 st.shared.u8 [box+{byte}], %r1;"
    if races:
        with pytest.raises(RaceFault, match="writes 1 bytes of shared memory that another warp read"):
            run(code, block=64, before=SHARED)
    else:
        run(code, block=64, before=SHARED)


def test_a_word_that_all_read_at_once():
    """Whichever warp writes it then: the first or the last."""
    for writer in ("%p0", "%p1"):
        with pytest.raises(RaceFault, match="writes 4 bytes of shared memory that another warp read"):
            run(READS + f"ld.shared.u32 %r2, [box]; @{writer} st.shared.u32 [box], %r1;", block=64, before=SHARED)


def test_two_that_write_one_place():
    code = "mov.u32 %r0, %tid.x; {change} st.shared.u32 [box], %r0;"
    with pytest.raises(RaceFault, match="another lane writes other ones in the same instruction"):
        run(code.format(change=""), block=32, before=SHARED)
    run(code.format(change="mov.u32 %r0, 5;"), block=32, before=SHARED)
    with pytest.raises(RaceFault, match="another lane writes other ones in the same instruction"):
        run("mov.u32 %r0, %tid.x; st.global.u32 [%rd0], %r0;", [np.zeros(1, "u4")], block=32)


def test_what_nobody_wrote_is_not_read():
    with pytest.raises(MemoryFault, match="reads 4 bytes of shared memory at 0x8 that nobody wrote"):
        run("mov.u16 %h1, 7; st.shared.u16 [box+8], %h1; ld.shared.u32 %r1, [box+8];", block=1, before=SHARED)


def test_what_nobody_wrote_is_not_a_number():
    y = np.zeros(1, "f4")
    code = "ld.shared.f32 %f1, [box+8]; st.global.f32 [%rd0], %f1;"
    run(code, [y], block=1, before=SHARED, strict=False)
    assert np.isnan(y).all()
    with pytest.raises(MemoryFault, match="that nobody wrote"):
        run(code, [y], block=1, before=SHARED)


def test_an_empty_array_may_not_be_touched():
    memory, empty = Memory(), np.zeros(0, "u4")
    with pytest.raises(MemoryFault, match="out of bounds"):
        code = "ld.param.u64 %rd0, [p]; ld.global.u32 %r1, [%rd0];"
        Module(kernel(code, ".u64 p")).launch("kernel", 1, 1, [memory.hold(empty)], memory=memory)


def test_shared_memory_is_checked():
    for code, message in (
        ("ld.shared.u32 %r1, [box+510];", "misaligned"),
        ("ld.shared.u32 %r1, [box+512];", r"out of bounds \(there are 512 bytes\)"),
        ("mov.u32 %r1, box; ld.shared.u32 %r1, [%r1+-4];", "out of bounds"),
        ("ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [box+8];", "misaligned"),
    ):
        with pytest.raises(MemoryFault, match=message):
            run(code, before=SHARED, grid=3)


def test_generic_addresses_find_their_space():
    before = SHARED + ".global .align 4 .u32 counter = 9;\n.const .align 4 .f32 numbers[3] = {0f3F800000, 2.5, -1.0};\n"
    code = """.local .align 8 .b8 own[16];
    mov.u32 %r0, %tid.x; and.b32 %r1, %r0, 1; setp.eq.u32 %p0, %r1, 0;
    mov.u64 %rd1, box; cvta.shared.u64 %rd1, %rd1; mul.wide.u32 %rd9, %r0, 4; add.s64 %rd1, %rd1, %rd9;
    mov.u64 %rd2, own; cvta.local.u64 %rd2, %rd2;
    selp.b64 %rd3, %rd1, %rd2, %p0; st.u32 [%rd3], %r0; ld.u32 %r2, [%rd3];
    add.s64 %rd4, %rd0, %rd9; st.u32 [%rd4], %r2;
    isspacep.shared %p1, %rd3; isspacep.global %p2, %rd4; isspacep.local %p3, %rd3;
    xor.pred %p4, %p1, %p3; and.pred %p4, %p4, %p2; @!%p4 trap;
    cvta.to.shared.u64 %rd5, %rd1; @%p0 ld.shared.u32 %r3, [%rd5]; @%p0 st.u32 [%rd4], %r3;
    ld.const.f32 %f1, [numbers+4]; ld.global.u32 %r4, [counter]; setp.ne.f32 %p5, %f1, 0f40200000; @%p5 trap;
    setp.ne.u32 %p5, %r4, 9; @%p5 trap;"""
    y = np.zeros(64, "u4")
    run(code, [y], block=64, before=before)
    assert y.tolist() == list(range(64))


def test_local_memory_belongs_to_a_lane():
    code = """.local .align 4 .b8 own[40];
    mov.u32 %r0, %tid.x; mov.u32 %r1, 0; mov.u64 %rd1, own;
    L: mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd1, %rd2; mad.lo.u32 %r2, %r0, 100, %r1; st.local.u32 [%rd2], %r2;
    add.u32 %r1, %r1, 1; setp.lt.u32 %p0, %r1, 10; @%p0 bra L;
    rem.u32 %r3, %r0, 10; mul.wide.u32 %rd2, %r3, 4; add.s64 %rd2, %rd1, %rd2; ld.local.u32 %r4, [%rd2];
    mul.wide.u32 %rd9, %r0, 4; add.s64 %rd9, %rd0, %rd9; st.global.u32 [%rd9], %r4;"""
    y = np.zeros(45, "u4")
    run(code, [y], block=45)
    assert y.tolist() == [n * 100 + n % 10 for n in range(45)]
    with pytest.raises(MemoryFault, match="reads 4 bytes of local memory at 0x28: out of bounds"):
        run(code.replace("rem.u32 %r3, %r0, 10", "mov.u32 %r3, %r0"), [y], block=45)


def test_variables_of_a_module():
    before = """.global .align 8 .b8 bytes[6] = {1, 2, 0xff};
    .global .u64 pointer = generic(bytes)+2; .global .align 4 .f64 half = 0.5;"""
    code = """ld.global.u64 %rd1, [pointer]; ld.global.u8 %r1, [%rd1]; st.global.u32 [%rd0], %r1;
    ld.global.f64 %fd1, [half]; cvt.rn.f32.f64 %f1, %fd1; st.global.f32 [%rd0+4], %f1; mov.u32 %r2, 77;
    st.global.u8 [bytes+5], %r2;"""
    y = np.zeros(2, "u4")
    module = run(code, [y], block=1, before=before)
    assert y.tolist() == [255, 0x3F000000] and module.variable("bytes").tolist() == [1, 2, 255, 0, 0, 77]


def test_blocks_that_write_what_others_read():
    code = "mov.u32 %r0, %ctaid.x; {what}"
    y = np.zeros(8, "u4")
    with pytest.raises(RaceFault, match=r"writes 4 bytes at .* block 0 wrote in this launch"):
        run(code.format(what="mov.u32 %r1, 3; st.global.u32 [%rd0], %r1;"), [y], grid=3, block=1, width=32)
    with pytest.raises(RaceFault, match=r"reads 1 bytes at .* block 0 wrote in this launch"):
        what = "setp.eq.u32 %p0, %r0, 0; @%p0 st.global.u32 [%rd0+4], %r0; ld.global.u8 %r2, [%rd0+6];"
        run(code.format(what=what), [y], grid=3, block=1)
    run(code.format(what="mul.wide.u32 %rd1, %r0, 4; add.s64 %rd1, %rd0, %rd1; st.global.u32 [%rd1], %r0;"
                    "ld.global.u32 %r2, [%rd1]; st.global.u32 [%rd1], %r2;"), [y], grid=3, block=1)  # fmt: skip
    run(code.format(what="st.volatile.global.u32 [%rd0], %r0; ld.relaxed.gpu.global.u32 %r1, [%rd0];"), [y], grid=3)


def test_a_launch_forgets_who_wrote_in_the_last_one():
    body = "ld.param.u32 %r1, [shift]; mov.u32 %r0, %ctaid.x; add.u32 %r0, %r0, %r1; and.b32 %r0, %r0, 7;"
    body += "ld.param.u64 %rd0, [y]; mul.wide.u32 %rd1, %r0, 4; add.s64 %rd1, %rd0, %rd1; st.global.u32 [%rd1], %r0;"
    module, memory, y = Module(kernel(body, ".u64 y,.u32 shift")), Memory(), np.zeros(9, "u4")
    for shift in (0, 3, 5):  # each time another block writes there
        module.launch("kernel", 8, 1, [memory.hold(y), shift], memory=memory)
    assert y.tolist() == [*range(8), 0]


LAST = """mov.u32 %r0, %ctaid.x; mov.u32 %r1, %nctaid.x; mul.wide.u32 %rd9, %r0, 4; add.s64 %rd2, %rd0, %rd9;
    mul.lo.u32 %r2, %r0, 10; st.global.u32 [%rd2], %r2; {fence} {atom} %r3, [%rd1], 1; add.u32 %r3, %r3, 1;
    setp.ne.u32 %p0, %r3, %r1; @%p0 exit; {fence} mov.u32 %r4, 0; mov.u32 %r5, 0;
    L: mul.wide.u32 %rd9, %r5, 4; add.s64 %rd3, %rd0, %rd9; ld.global.u32 %r6, [%rd3]; add.u32 %r4, %r4, %r6;
    add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, %r1; @%p1 bra L; st.global.u32 [%rd1+4], %r4;"""


@pytest.mark.parametrize("width", [32, 4096])
def test_the_last_block_reads_what_others_published(width):
    for fence, atom in (
        ("membar.gl;", "atom.global.add.u32"),
        ("fence.acq_rel.gpu;", "atom.relaxed.gpu.global.add.u32"),
        ("", "atom.acq_rel.gpu.global.add.u32"),
    ):
        y, state = np.zeros(9, "u4"), np.zeros(2, "u4")
        run(LAST.format(fence=fence, atom=atom), [y, state], grid=9, block=1, width=width)
        assert state.tolist() == [9, 360]
    with pytest.raises(
        RaceFault, match=r"block \(8, 0, 0\), .* reads 4 bytes at .*, which block 0 wrote in this launch"
    ):
        run(LAST.format(fence="membar.cta;", atom="atom.global.add.u32"), [y, np.zeros(2, "u4")], grid=9, block=1)


def test_faults_are_faults():
    assert issubclass(MemoryFault, Fault) and issubclass(RaceFault, Fault)
