"""The processor in the words of Linux: enough to tell processors apart, and no other features than LLVM finds."""

import sys

import pytest

from pio.kernels import _processor

X86 = """processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: 207
model name	: Intel(R) Xeon(R) Processor
stepping	: 2
cpu MHz		: 2100.000
flags		: fpu sse2 avx512f avx512_bf16
bogomips	: 4200.00

"""
ARM = """processor	: 0
BogoMIPS	: 243.75
Features	: fp asimd asimddp
CPU implementer	: 0x41
CPU part	: 0xd05

processor	: 1
BogoMIPS	: 243.75
Features	: fp asimd asimddp
CPU implementer	: 0x41
CPU part	: 0xd0a

"""


def described(tmp_path, text):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    return _processor.described.__wrapped__(str(path))


def test_what_changes_from_look_to_look_is_left_out(tmp_path):
    lines, can = described(tmp_path, X86)
    assert can == {"fpu", "sse2", "avx512f", "avx512_bf16"} and len(lines) == 6
    other_core = X86.replace("processor	: 0", "processor	: 1").replace("2100.000", "3377.123")
    assert described(tmp_path, X86 + other_core) == (lines, can)


@pytest.mark.parametrize(
    "change",
    [
        ("GenuineIntel", "AuthenticAMD"),
        ("model		: 207", "model		: 85"),
        ("stepping	: 2", "stepping	: 3"),
        (" sse2", ""),
    ],
)
def test_processors_are_told_apart(tmp_path, change):
    assert described(tmp_path, X86) != described(tmp_path, X86.replace(*change))


def test_cores_of_two_kinds_are_both_told(tmp_path):
    lines, can = described(tmp_path, ARM)
    assert can == {"fp", "asimd", "asimddp"}
    assert [line for line in lines if "part" in line] == ["CPU part: 0xd05", "CPU part: 0xd0a"]


def test_where_linux_says_nothing_llvm_does(tmp_path, monkeypatch):
    assert described(tmp_path, "") is None and _processor.described.__wrapped__(str(tmp_path / "absent")) is None
    here = _processor.target()
    monkeypatch.setattr(_processor, "described", lambda: None)
    llvms = _processor.target.__wrapped__()
    assert llvms != here and "-" in llvms[0] and ("sse2" in llvms[-1] or "neon" in llvms[-1])
    assert _processor.compiles_for("avx2") == _processor.cpu_features().get("avx2", False)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere LLVM is asked")
@pytest.mark.parametrize("feature", ["avx2", "avx512f", "avx512bf16", "avx512vnni", "dotprod"])
def test_linux_and_llvm_find_the_same_features(feature):
    assert _processor.described() is not None
    assert _processor.compiles_for(feature) == _processor.cpu_features().get(feature, False)
