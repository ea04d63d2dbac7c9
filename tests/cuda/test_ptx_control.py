"""Branches, loops, calls, barriers, warps that split and meet again; and kernels that never end."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import BarrierFault, Fault, LimitFault
from snippets import run

SHARED = ".shared .align 16 .b8 box[4096];\n"
STORE = """mov.u32 %r60, %ctaid.x; mov.u32 %r61, %ntid.x; mov.u32 %r62, %tid.x; mad.lo.u32 %r60, %r60, %r61, %r62;
    mul.wide.u32 %rd60, %r60, 4; add.s64 %rd60, %rd0, %rd60; st.global.u32 [%rd60], %r9;"""


def values(code, block=64, grid=1, before="", **options):
    y = np.full((grid, block), 12345, "u4")
    run(f"mov.u32 %r0, %tid.x; {code} {STORE}", [y], block=block, grid=grid, before=before, **options)
    return y[0].tolist() if grid == 1 else y.tolist()


def test_lanes_take_their_own_ways():
    code = """and.b32 %r1, %r0, 3; mov.u32 %r9, 0; setp.eq.u32 %p0, %r1, 0; @%p0 bra A; setp.eq.u32 %p1, %r1, 1;
    @%p1 bra B; @!%p1 bra.uni C;
    A: mov.u32 %r9, 10; bra E;
    B: mov.u32 %r9, 20; bra E;
    C: add.u32 %r9, %r1, 30;
    E: add.u32 %r9, %r9, %r0;"""
    assert values(code, 50) == [(10, 20, 32, 33)[n % 4] + n for n in range(50)]


@pytest.mark.parametrize(("block", "grid"), [(64, 1), (37, 7), (1, 3)])
def test_loops_of_different_lengths_with_breaks_and_continues(block, grid):
    """The number of steps of the Collatz sequence, odd ones counted apart, at most 40."""
    code = """mov.u32 %r5, %ctaid.x; mad.lo.u32 %r1, %r5, 11, %r0; add.u32 %r1, %r1, 1; mov.u32 %r2, 0; mov.u32 %r3, 0;
    L: setp.eq.u32 %p0, %r1, 1; @%p0 bra DONE; setp.ge.u32 %p1, %r2, 40; @%p1 bra DONE;
    add.u32 %r2, %r2, 1; and.b32 %r4, %r1, 1; setp.eq.u32 %p2, %r4, 0; @%p2 bra EVEN;
    mad.lo.u32 %r1, %r1, 3, 1; add.u32 %r3, %r3, 1; bra L;
    EVEN: shr.u32 %r1, %r1, 1; bra L;
    DONE: mad.lo.u32 %r9, %r3, 100, %r2;"""

    def steps(n):
        all_, odd = 0, 0
        while n != 1 and all_ < 40:
            all_, odd = all_ + 1, odd + n % 2
            n = n * 3 + 1 if n % 2 else n // 2
        return odd * 100 + all_

    expected = [[steps(b * 11 + n + 1) for n in range(block)] for b in range(grid)]
    assert values(code, block, grid) == (expected[0] if grid == 1 else expected)


def test_results_do_not_depend_on_how_many_blocks_run_together():
    code = """mov.u32 %r50, box; mad.lo.u32 %r10, %r0, 4, %r50; mov.u32 %r1, %ctaid.x; mov.u32 %r9, 0;
    L: add.u32 %r9, %r9, %r1; st.shared.u32 [%r10], %r9; bar.sync 0; setp.ge.u32 %p0, %r9, 90; @%p0 bra O;
    O: add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 40; bar.sync 0; @!%p1 bra Q; bra L; Q: """
    found = [values(code, 32, 9, before=SHARED, width=width) for width in (32, 64, 96, 4096)]
    assert found == [[[sum(range(block, 40))] * 32 for block in range(9)]] * 4


def test_some_lanes_exit_early():
    y = np.full(64, 9, "u4")
    run(f"mov.u32 %r0, %tid.x; setp.ge.u32 %p0, %r0, 41; @%p0 exit; add.u32 %r9, %r0, 1; {STORE}", [y], block=64)
    assert y.tolist() == [*range(1, 42), *[9] * 23]
    y[:] = 9
    run(
        f"mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 41; @%p0 bra L; ret; L: add.u32 %r9, %r0, 1; {STORE}",
        [y],
        block=64,
    )
    assert y.tolist() == [*range(1, 42), *[9] * 23]


def test_branches_by_number():
    code = """rem.u32 %r1, %r0, 3; mov.u32 %r9, 7; T: .branchtargets A, B, C; brx.idx %r1, T;
    A: add.u32 %r9, %r9, 1; bra E; B: add.u32 %r9, %r9, 10; C: add.u32 %r9, %r9, 100; E: """
    assert values(code) == [(8, 117, 107)[n % 3] for n in range(64)]
    with pytest.raises(Fault, match="branches to number 3 of 3"):
        values(code.replace("rem.u32 %r1, %r0, 3", "mov.u32 %r1, 3"))


FUNCTIONS = """
.func (.param .b32 result) scaled(.param .b32 x, .param .b32 by)
{
    .reg .b32 %r<9>; .reg .pred %p<2>;
    ld.param.u32 %r1, [x]; ld.param.u32 %r2, [by]; setp.lt.u32 %p1, %r1, 5; @%p1 bra SMALL;
    mul.lo.u32 %r3, %r1, %r2; st.param.b32 [result+0], %r3; ret;
SMALL: mov.u32 %r3, 1000; st.param.b32 [result], %r3; ret;
}
.func twice(.param .b64 place, .param .align 8 .b8 pair[8])
{
    .reg .b32 %r<9>; .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [place]; ld.param.v2.u32 {%r1, %r2}, [pair];
    { .param .b32 a; st.param.b32 [a], %r1; .param .b32 b; st.param.b32 [b], %r2; .param .b32 c;
      call.uni (c), scaled, (a, b); ld.param.b32 %r3, [c]; }
    st.global.u32 [%rd1], %r3;
}
"""


def test_calls_of_functions_that_call_functions():
    code = f"""and.b32 %r1, %r0, 1; setp.eq.u32 %p0, %r1, 0; mov.u32 %r9, 3; @%p0 bra SKIP;
    {{ .param .b64 p0; .param .align 8 .b8 p1[8]; mul.wide.u32 %rd8, %r0, 4; add.s64 %rd8, %rd0, %rd8;
      st.param.b64 [p0+0], %rd8; mov.u32 %r3, 7; st.param.v2.b32 [p1], {{%r0, %r3}}; call twice, (p0, p1); }}
    bra END;
    SKIP: {{ .param .b32 x; .param .b32 y; .param .b32 z; st.param.b32 [x], %r0; mov.u32 %r2, 2; st.param.b32 [y], %r2;
      call (z), scaled, (x, y); ld.param.u32 %r9, [z]; }}
    {STORE}
    END: """
    y = np.zeros(40, "u4")
    run(f"mov.u32 %r0, %tid.x; {code}", [y], block=40, before=FUNCTIONS)
    assert y.tolist() == [1000 if n < 5 else n * 7 if n % 2 else n * 2 for n in range(40)]


def test_registers_as_arguments():
    code = "mov.u32 %r1, 3; call (%r9), scaled, (%r0, %r1);"
    assert values(code, 33, before=FUNCTIONS) == [1000 if n < 5 else 3 * n for n in range(33)]


def test_a_function_that_is_elsewhere():
    before = ".extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);\n"
    code = "{ .param .b32 r; .param .b64 a; .param .b64 b; setp.eq.u32 %p0, %r0, 99; @%p0 call (r), vprintf, (a, b); }"
    assert values(f"mov.u32 %r9, 1; {code}", 32, before=before) == [1] * 32
    with pytest.raises(Fault, match="calls vprintf, which has no body here"):
        values(f"mov.u32 %r9, 1; {code.replace('99', '9')}", 32, before=before)


def test_names_of_inner_scopes():
    code = """mov.u32 %r9, 1; { .reg .b32 %r9; .reg .pred q; mov.u32 %r9, 77; setp.gt.u32 q, %r0, 3; @!q bra L;
    add.u32 %r1, %r9, 0; L: } { .reg .b32 %r9; mov.u32 %r9, 5; L: } add.u32 %r9, %r9, %r0;"""
    assert values(code) == [n + 1 for n in range(64)]


def test_a_trap():
    with pytest.raises(
        Fault, match=r"block \(1, 0, 0\), thread \(33, 0, 0\), lane 1 of warp 1 traps\nkernel kernel, line"
    ):
        values("mov.u32 %r1, %ctaid.x; mad.lo.u32 %r1, %r1, 64, %r0; setp.eq.u32 %p0, %r1, 97; @%p0 trap;", 64, 3)


def test_special_registers():
    y = np.zeros((2 * 3 * 2, 3 * 5 * 4, 8), "u4")
    names = ["%tid.x", "%tid.y", "%tid.z", "%ctaid.x", "%ctaid.y", "%ctaid.z", "%laneid", "%warpid"]
    code = """mov.u32 %r1, %ntid.x; mov.u32 %r2, %ntid.y; mov.u32 %r3, %ntid.z; mov.u32 %r4, %tid.x;
    mov.u32 %r5, %tid.y; mov.u32 %r6, %tid.z;
    mad.lo.u32 %r7, %r6, %r2, %r5; mad.lo.u32 %r7, %r7, %r1, %r4; mul.lo.u32 %r8, %r1, %r2;
    mul.lo.u32 %r8, %r8, %r3; mov.u32 %r10, %nctaid.x; mov.u32 %r11, %nctaid.y; mov.u32 %r12, %ctaid.x;
    mov.u32 %r13, %ctaid.y; mov.u32 %r14, %ctaid.z; mad.lo.u32 %r15, %r14, %r11, %r13;
    mad.lo.u32 %r15, %r15, %r10, %r12;
    mad.lo.u32 %r7, %r15, %r8, %r7; mul.wide.u32 %rd1, %r7, 32; add.s64 %rd1, %rd0, %rd1;"""
    for n, name in enumerate(names):
        code += f"mov.u32 %r20, {name}; st.global.u32 [%rd1+{4 * n}], %r20;"
    run(code, [y], grid=(2, 3, 2), block=(3, 5, 4))
    for b in range(12):
        for t in range(60):
            expected = [t % 3, t // 3 % 5, t // 15, b % 2, b // 2 % 3, b // 6, t % 32, t // 32]
            assert y[b, t].tolist() == expected
    code = "mov.u32 %r9, %lanemask_lt; mov.u32 %r1, %lanemask_ge; xor.b32 %r1, %r1, %r9; not.b32 %r1, %r1; @%p0 trap;"
    assert values("setp.ne.u32 %p0, %r0, %r0;" + code) == [2 ** (n % 32) - 1 for n in range(64)]


def test_clocks_go_on():
    code = """mov.u64 %rd1, %clock64; mov.u32 %r1, %clock; mov.u64 %rd3, %globaltimer; mov.u64 %rd2, %clock64;
    mov.u64 %rd4, %globaltimer; setp.gt.u64 %p0, %rd2, %rd1; setp.ge.u64 %p1, %rd4, %rd3; and.pred %p0, %p0, %p1;
    selp.u32 %r9, 1, 0, %p0;"""
    assert set(values(code)) == {1}


# Barriers


def test_a_barrier_in_a_loop_of_blocks_of_different_length():
    """Each block sums over shared memory as often as its number says."""
    code = """mov.u32 %r1, %ctaid.x; mov.u32 %r50, box; mov.u32 %r2, 0; mad.lo.u32 %r3, %r0, 4, %r50; mov.u32 %r9, %r0;
    mov.u32 %r8, %ntid.x;
    L: setp.ge.u32 %p0, %r2, %r1; @%p0 bra DONE; st.shared.u32 [%r3], %r9; bar.sync 0;
    add.u32 %r4, %r0, 1; setp.eq.u32 %p1, %r4, %r8; selp.u32 %r4, 0, %r4, %p1; mad.lo.u32 %r4, %r4, 4, %r50;
    ld.shared.u32 %r5, [%r4]; add.u32 %r9, %r9, %r5; bar.sync 0; add.u32 %r2, %r2, 1; bra L; DONE: """
    found = values(code, 70, 5, before=SHARED)
    for block in range(5):
        row = list(range(70))
        for _ in range(block):
            row = [row[n] + row[(n + 1) % 70] for n in range(70)]
        assert found[block] == row


def test_a_barrier_that_lanes_miss():
    code = "mov.u32 %r9, 1; setp.lt.u32 %p0, %r0, 40; @!%p0 bra L; bar.sync 0; L: "
    message = r"thread \(0, 0, 0\), lane 0 of warp 0 waits at barrier 0, which never come \(24 exited\)\n"
    message += r"kernel kernel, line \d+: bar.sync 0"
    with pytest.raises(BarrierFault, match=message):
        values(code)
    other = "mov.u32 %r9, 1; setp.lt.u32 %p0, %r0, 32; @!%p0 bra L; bar.sync 0; L: bar.sync 1;"
    with pytest.raises(BarrierFault, match=r"waits at barrier 0, which never come \(32 at line \d+\)"):
        values(other)
    with pytest.raises(BarrierFault, match=r"waits at barrier 0, which never come \(63 exited\)"):
        values("setp.ne.u32 %p0, %r0, 0; @%p0 exit; barrier.sync 0; mov.u32 %r9, 1;")


def test_lanes_of_a_warp_pass_a_barrier_at_one_place():
    code = """mov.u32 %r9, 1; and.b32 %r1, %r0, 1; setp.eq.u32 %p0, %r1, 0; @%p0 bra L;
    bar.sync 0; bra E; L: bar.sync 0; E: """
    with pytest.raises(BarrierFault, match="lanes of one warp are at the barriers of lines"):
        values(code)
    warps = code.replace("and.b32 %r1, %r0, 1", "shr.u32 %r1, %r0, 5")
    assert set(values(warps)) == {1}


def test_barriers_with_names_and_numbers_of_threads():
    """Warps 0 and 1 hand something on while warp 2 does not wait; warp 3 only says that it is there."""
    code = """shr.u32 %r1, %r0, 5; mov.u32 %r9, 0; mov.u32 %r50, box; setp.eq.u32 %p0, %r1, 2; @%p0 bra DONE;
    setp.eq.u32 %p1, %r1, 3; @%p1 bra THIRD;
    setp.eq.u32 %p2, %r1, 1; @%p2 bra WAITS; mad.lo.u32 %r2, %r0, 4, %r50;
    st.shared.u32 [%r2], %r0; bar.sync 3, 96; bra DONE;
    WAITS: bar.sync 3, 96; sub.u32 %r2, %r0, 32; mad.lo.u32 %r2, %r2, 4, %r50; ld.shared.u32 %r9, [%r2]; bra DONE;
    THIRD: bar.arrive 3, 96;
    DONE: """
    assert values(code, 128, before=SHARED) == [*[0] * 32, *range(32), *[0] * 64]
    with pytest.raises(Fault, match="no multiple of 32"):
        values("mov.u32 %r9, 0; bar.sync 1, 33;")
    with pytest.raises(Fault, match="one number from 0 to 15"):
        values("mov.u32 %r9, 0; bar.sync %r0;")
    with pytest.raises(BarrierFault, match="waits at barrier 2, which never come"):
        values("mov.u32 %r9, 0; bar.sync 2, 96;")


def test_barriers_that_count_and_join():
    code = """rem.u32 %r1, %r0, 3; setp.eq.u32 %p0, %r1, 1; bar.red.popc.u32 %r2, 0, %p0; setp.lt.u32 %p1, %r0, 70;
    bar.red.and.pred %p2, 0, %p1; bar.red.or.pred %p3, 1, !%p1; selp.u32 %r3, 1, 0, %p2; selp.u32 %r4, 1, 0, %p3;
    mad.lo.u32 %r9, %r2, 10, %r3; mad.lo.u32 %r9, %r9, 10, %r4;"""
    assert set(values(code, 64)) == {2110} and set(values(code, 75)) == {2501}


# Loops without end, and lanes that wait for others


def test_a_loop_without_end():
    with pytest.raises(
        LimitFault, match=r"more than 5000 instructions: a loop without end\?\nkernel kernel, line \d+: bra"
    ):
        values("L: add.u32 %r9, %r9, 1; bra L;", limit=5000)
    with pytest.raises(LimitFault, match="more than 5000 instructions"):
        values("mov.u32 %r9, 1; setp.eq.u32 %p0, %r0, 3; @!%p0 bra E; L: @%p0 bra L; E: ", limit=5000)


def test_a_loop_without_end_in_which_lanes_split():
    code = "mov.u32 %r9, 1; L: and.b32 %r1, %r0, 1; T: .branchtargets A, B; brx.idx %r1, T; A: bra L; B: bra L;"
    with pytest.raises(LimitFault, match="more than 5000 instructions"):
        values(code, limit=5000)


def test_lanes_that_wait_for_others_let_them_go_on():
    """One lane waits, above in the text, for what another writes below."""
    code = """mov.u32 %r9, 0; setp.eq.u32 %p0, %r0, 5; @!%p0 bra WRITES;
    SPIN: ld.volatile.shared.u32 %r1, [box]; setp.ne.u32 %p1, %r1, 77; @%p1 bra SPIN; mov.u32 %r9, 77; bra E;
    WRITES: mov.u32 %r2, 77; setp.eq.u32 %p2, %r0, 6; @%p2 st.volatile.shared.u32 [box], %r2;
    E: """
    first = "setp.eq.u32 %p3, %r0, 0; mov.u32 %r3, 0; @%p3 st.shared.u32 [box], %r3; bar.sync 0;"
    assert values(first + code, before=SHARED) == [77 if n == 5 else 0 for n in range(64)]


def test_blocks_that_run_together_may_wait_for_each_other():
    y, flags = np.zeros(4, "u4"), np.zeros(4, "u4")
    code = """mov.u32 %r0, %ctaid.x; mov.u32 %r1, %nctaid.x; sub.u32 %r1, %r1, 1; mul.wide.u32 %rd2, %r0, 4;
    add.s64 %rd3, %rd1, %rd2; setp.eq.u32 %p0, %r0, %r1; @%p0 bra LAST;
    SPIN: ld.acquire.gpu.global.u32 %r2, [%rd3+4]; setp.eq.u32 %p1, %r2, 0; @%p1 bra SPIN; bra GO;
    LAST: mov.u32 %r2, 0;
    GO: add.u32 %r2, %r2, 1; st.release.gpu.global.u32 [%rd3], %r2; add.s64 %rd4, %rd0, %rd2;
    st.global.u32 [%rd4], %r2;"""
    run(code, [y, flags], grid=4, block=1)
    assert y.tolist() == [4, 3, 2, 1]
    with pytest.raises(LimitFault):
        run(code, [y, np.zeros(4, "u4")], grid=4, block=1, width=32, limit=100_000)
