"""Loads and stores of global memory, and which of them are errors."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import Memory, MemoryFault, Module
from snippets import compute, kernel, run

# The address of element %r0 of a uint32 array at %rd0 is in %rd9.
ELEMENT = "mov.u32 %r0, %tid.x; mul.wide.u32 %rd9, %r0, 4; add.s64 %rd9, %rd0, %rd9;"
SHARED = ".shared .align 16 .b8 box[512];\n"


@pytest.mark.parametrize(("bits", "vector"), [(8, 1), (8, 4), (16, 2), (32, 1), (32, 2), (32, 4), (64, 1), (64, 2)])
def test_vectors_of_every_width(bits, vector):
    dtype = f"u{bits // 8}"
    x = np.random.default_rng(1).integers(0, 2**bits, (37, vector), dtype)
    y = np.zeros_like(x)
    registers = [f"%{'rd' if bits == 64 else 'r' if bits == 32 else 'h'}{9 + n}" for n in range(vector)]
    items = f"{{{', '.join(registers)}}}" if vector > 1 else registers[0]
    word = f".v{vector}" if vector > 1 else ""
    step = bits * vector // 8
    body = f"""mov.u32 %r0, %tid.x; mul.wide.u32 %rd4, %r0, {step}; add.s64 %rd5, %rd0, %rd4; add.s64 %rd6, %rd1, %rd4;
    ld.global.nc.L1::no_allocate{word}.u{bits} {items}, [%rd5]; st.global{word}.b{bits} [%rd6], {items};"""
    run(body, [x, y], block=37)
    assert np.array_equal(x, y)


def test_narrow_loads_are_extended():
    x = np.array([0, 1, 127, 128, 255], "u1")
    assert compute("ld.global.s8 %d, [%at];", x, out="i4").tolist() == [0, 1, 127, -128, -1]
    assert compute("ld.global.u8 %d, [%at];", x, out="u8").tolist() == x.tolist()
    assert compute("ld.global.s8 %h9, [%at]; cvt.s32.s16 %d, %h9;", x, out="i4").tolist() == [0, 1, 127, -128, -1]


def test_hints_and_policies_have_no_effect():
    x = np.array([5, 6, 7], "u4")
    policy = "createpolicy.fractional.L2::evict_first.b64 %rd9, 1.0; prefetch.global.L2 [%at];"
    load = "ld.global.nc.L1::no_allocate.L2::cache_hint.L2::256B.u32 %d, [%at], %rd9;"
    assert compute(f"{policy} {load}", x).tolist() == [5, 6, 7]


def test_narrow_stores_cut_off():
    x = np.zeros(32, "u1")
    run("mov.u32 %r0, %tid.x; cvt.u64.u32 %rd1, %r0; add.s64 %rd1, %rd0, %rd1; add.u32 %r0, %r0, 250;"
        "st.global.u8 [%rd1], %r0;", [x])  # fmt: skip
    assert x.tolist() == [(n + 250) % 256 for n in range(32)]


def test_offsets():
    x = np.arange(40, dtype="u4")
    y = np.zeros(32, "u4")
    run(f"{ELEMENT} ld.global.u32 %r1, [%rd9+32]; sub.s64 %rd9, %rd9, %rd0; add.s64 %rd9, %rd1, %rd9;"
        "add.s64 %rd9, %rd9, 64; st.global.u32 [%rd9+-64], %r1;", [x, y])  # fmt: skip
    assert y.tolist() == list(range(8, 40))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "ld.global.u32 %r1, [%rd9+4];",
            r"thread \(31, 0, 0\).*reads 4 bytes at 0x[0-9a-f]+: out of bounds \(byte 128",
        ),
        ("ld.global.u32 %r1, [%rd9+-4];", r"thread \(0, 0, 0\).*reads 4 bytes .*out of bounds"),
        ("st.global.u32 [%rd9+4096], %r0;", r"writes 4 bytes at .*out of bounds"),
        ("ld.global.u32 %r1, [%rd9+2];", r"thread \(0, 0, 0\).*misaligned"),
        ("ld.global.v2.u32 {%r1, %r2}, [%rd9];", r"thread \(1, 0, 0\), lane 1 of warp 0 reads 8 bytes .*misaligned"),
        ("ld.global.u8 %r1, [%rd9+-1];", r"thread \(0, 0, 0\).*out of bounds"),
        ("ld.global.u32 %r1, [%rd0+0xffffffffff];", "misaligned"),
        ("mov.u64 %rd1, 0; ld.global.u32 %r1, [%rd1];", r"reads 4 bytes at 0x0: out of bounds"),
        ("@%p0 bra L; L: st.global.u32 [0], %r0;", r"kernel kernel, line \d+: st.global.u32 \[0\], %r0"),
        ("ld.u32 %r1, [%rd9+128];", r"thread \(0, 0, 0\).*out of bounds"),
    ],
)
def test_global_memory_is_checked(code, message):
    with pytest.raises(MemoryFault, match=message):
        run(ELEMENT + code, [np.zeros(32, "u4")])


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_an_instruction_that_went_well_before_is_checked_again(bits):
    """Every address near the ends of a region, and each that is misaligned, after a first round that was right."""
    raw = np.zeros(96, "u1")
    start = -raw.ctypes.data % 16 + 16
    width = bits // 8
    code = f"""ld.param.u64 %rd0, [p]; ld.param.u64 %rd1, [q]; mov.u32 %r0, 0;
    L: add.u32 %r0, %r0, 1; ld.global.u{bits} %rd5, [%rd0];
    st.shared.u{bits} [box], %rd5; ld.shared.u{bits} %rd5, [box];
    mov.u64 %rd0, %rd1; setp.lt.u32 %p0, %r0, 2; @%p0 bra L;"""
    module = Module(kernel(code, ".u64 p,.u64 q", before=SHARED))
    memory = Memory()
    first = memory.add(raw.ctypes.data + start, 32)
    for offset in range(-16, 48):
        args = [first, first + offset]
        if offset % width == 0 and 0 <= offset <= 32 - width:
            module.launch("kernel", 1, 1, args, memory=memory)
        else:
            with pytest.raises(MemoryFault, match="misaligned" if offset % width else "out of bounds"):
                module.launch("kernel", 1, 1, args, memory=memory)
    shared = code.replace("mov.u64 %rd0, %rd1;", "").replace("[box], %rd5; ld.shared", "[%rd1], %rd5; ld.shared")
    shared = shared.replace("mov.u32 %r0, 0;", "mov.u32 %r0, 0; mov.u64 %rd3, %rd1; mov.u64 %rd1, box;")
    shared = shared.replace("%rd5, [box];", "%rd5, [%rd1]; mov.u64 %rd1, %rd3;")
    module = Module(kernel(shared, ".u64 p,.u64 q", before=SHARED))
    for offset in (*range(-16, 17), *range(496, 528)):
        args = [first, offset % 2**64]
        if offset % width == 0 and 0 <= offset <= 512 - width:
            module.launch("kernel", 1, 1, args, memory=memory)
        else:
            with pytest.raises(MemoryFault, match="misaligned" if offset % width else "out of bounds"):
                module.launch("kernel", 1, 1, args, memory=memory)


def test_masked_lanes_touch_nothing():
    x = np.zeros(5, "u4")
    run(f"{ELEMENT} setp.lt.u32 %p0, %r0, 5; @%p0 st.global.u32 [%rd9], %r0;", [x])
    assert x.tolist() == [0, 1, 2, 3, 4]


def test_what_is_read_only_is_not_written():
    memory = Memory()
    x = np.zeros(32, "u4")
    address = memory.hold(x, writable=False, name="weights")
    module = Module(kernel(f"ld.param.u64 %rd0, [p]; {ELEMENT} st.global.u32 [%rd9], %r0;", ".u64 p"))
    with pytest.raises(MemoryFault, match=r"writes 4 bytes at .*weights, 128 bytes is read-only"):
        module.launch("kernel", 1, 32, [address], memory=memory)
    assert not x.any()


def test_an_access_goes_to_several_regions():
    memory = Memory()
    parts = [np.arange(n, n + 16, dtype="u4") for n in (0, 100)]
    y = np.zeros(32, "u4")
    table = np.array([memory.hold(part) for part in parts], "u8")
    code = f"""ld.param.u64 %rd0, [out]; ld.param.u64 %rd1, [table]; {ELEMENT}
    shr.u32 %r1, %r0, 4; mul.wide.u32 %rd2, %r1, 8; add.s64 %rd2, %rd1, %rd2; ld.global.u64 %rd3, [%rd2];
    and.b32 %r2, %r0, 15; mul.wide.u32 %rd4, %r2, 4; add.s64 %rd3, %rd3, %rd4; ld.global.u32 %r3, [%rd3];
    add.u32 %r4, %r3, 1; st.global.u32 [%rd3], %r4; st.global.u32 [%rd9], %r3;"""
    module = Module(kernel(code, ".u64 out,.u64 table"))
    module.launch("kernel", 1, 32, [memory.hold(y), memory.hold(table)], memory=memory)
    assert y.tolist() == [*range(16), *range(100, 116)]
    assert [part[0] for part in parts] == [1, 101]


def test_a_region_may_begin_anywhere():
    raw = np.zeros(64, "u1")
    start = -raw.ctypes.data % 16 + 4
    memory = Memory()
    memory.add(raw.ctypes.data + start, 32)
    code = "ld.param.u64 %rd0, [p]; mov.u32 %r0, 7; st.global.u32 [%rd0], %r0; ld.global.u32 %r1, [%rd0];"
    code += "st.global.u64 [%rd0+4], %rd0; ld.global.u64 %rd1, [%rd0+4]; st.global.u64 [%rd0+12], %rd1;"
    Module(kernel(code, ".u64 p")).launch("kernel", 1, 1, [raw.ctypes.data + start], memory=memory)
    assert raw[start : start + 4].view("u4")[0] == 7
    assert raw[start + 12 : start + 20].tobytes() == (raw.ctypes.data + start).to_bytes(8, "little")


def test_regions_do_not_overlap():
    x = np.zeros(8, "u4")
    memory = Memory()
    memory.hold(x)
    for address, nbytes in ((x.ctypes.data + 4, 4), (x.ctypes.data - 8, 16), (x.ctypes.data + 31, 9)):
        with pytest.raises(ValueError, match="overlaps"):
            memory.add(address, nbytes)
    memory.add(x.ctypes.data + 32, 4)
    memory.remove(x.ctypes.data)
    memory.hold(x[:4])
    with pytest.raises(ValueError, match="no region begins"):
        memory.remove(x.ctypes.data + 8)
    with pytest.raises(ValueError, match="contiguous"):
        memory.hold(np.zeros((4, 4))[:, 1])
