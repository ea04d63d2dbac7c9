"""The processor in the words of Linux: enough to tell processors apart, and no other features than LLVM finds."""

import sys

import pytest
from llvmlite import binding, ir
from numba.core.registry import cpu_target

from pio.kernels import _llvm, _processor

X86 = """processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: 207
model name	: Intel(R) Xeon(R) Processor
stepping	: 2
cpu MHz		: 2100.000
flags		: fpu sse2 avx512f avx512_bf16 rdtscp constant_tsc ibrs_enhanced md_clear ospke
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


def described(tmp_path, monkeypatch, text, machine="x86_64"):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(_processor, "_SAID", {"x86_64": _processor._X86, "aarch64": _processor._ARM}[machine])
    return _processor.described.__wrapped__(str(path))


class Arm:
    """A system on ARM, as far as processors go."""

    machine = "aarch64"

    def __init__(self, *features):
        self.features = frozenset(features)

    def processor_features(self):
        return self.features


def test_what_changes_from_look_to_look_and_with_the_system_is_left_out(tmp_path, monkeypatch):
    found = described(tmp_path, monkeypatch, X86)
    can = ["avx512_bf16", "avx512f", "fpu", "sse2"]
    assert found == (("vendor_id: GenuineIntel", "cpu family: 6", "model: 207", *can), set(can))
    other_core = X86.replace("processor	: 0", "processor	: 1").replace("2100.000", "3377.123")
    assert described(tmp_path, monkeypatch, X86 + other_core) == found
    other_system = X86.replace("constant_tsc ibrs_enhanced md_clear", "tsc_reliable srso_no hypervisor")
    assert described(tmp_path, monkeypatch, other_system.replace("stepping	: 2", "stepping	: 3")) == found


def test_an_emulated_process_does_not_take_its_hosts_processor_for_its_own(tmp_path, monkeypatch):
    assert described(tmp_path, monkeypatch, X86, "aarch64") is None
    assert described(tmp_path, monkeypatch, ARM, "x86_64") is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere LLVM is asked")
def test_no_word_of_an_instruction_set_is_taken_for_the_systems():
    llvms = {feature.replace("-", "").replace("_", "").replace(".", "") for feature in _processor.cpu_features()}
    with open(_processor.CPUINFO, encoding="utf-8") as file:
        words = {word for line in file for word in line.split()}
    left_out = {word for word in words if _processor._SYSTEM.fullmatch(word)}
    assert {word for word in left_out if word.replace("_", "") in llvms} == set()


@pytest.mark.parametrize(
    "change",
    [
        ("GenuineIntel", "AuthenticAMD"),
        ("model		: 207", "model		: 85"),
        (" sse2", ""),
    ],
)
def test_processors_are_told_apart(tmp_path, monkeypatch, change):
    assert described(tmp_path, monkeypatch, X86) != described(tmp_path, monkeypatch, X86.replace(*change))


def test_cores_of_two_kinds_are_both_told(tmp_path, monkeypatch):
    lines, can = described(tmp_path, monkeypatch, ARM, "aarch64")
    assert can == {"fp", "asimd", "asimddp"}
    assert [line for line in lines if "part" in line] == ["CPU part: 0xd05", "CPU part: 0xd0a"]


def test_where_linux_says_nothing_llvm_does(tmp_path, monkeypatch):
    assert (
        described(tmp_path, monkeypatch, "") is None
        and _processor.described.__wrapped__(str(tmp_path / "absent")) is None
    )
    here = _processor.target()
    monkeypatch.setattr(_processor, "described", lambda: None)
    llvms = _processor.target.__wrapped__()
    assert llvms != here and "-" in llvms[0] and ("sse2" in llvms[-1] or "neon" in llvms[-1])
    for has in (True, False):
        monkeypatch.setattr(_processor, "cpu_features", lambda has=has: {"avx2": has})
        assert _processor.compiles_for("avx2") is has


def test_kernels_for_a_processor_that_is_named_do_not_depend_on_this_one(monkeypatch):
    monkeypatch.setattr(_processor._settings, "CPU_NAME", "skylake")
    monkeypatch.setattr(_processor._settings, "CPU_FEATURES", "+avx2")
    monkeypatch.setattr(_processor, "described", lambda: pytest.fail("looked at this processor"))
    monkeypatch.setattr(_processor, "AMX", _processor._amx())
    assert _processor.target.__wrapped__()[1:] == ("skylake", "+avx2")


AMX_WORDS = frozenset({"avx512f", "avx512_vnni", "amx_tile", "amx_int8"})
AMX_FEATURES = "+avx512f,+avx512vnni,+amx-tile,+amx-int8"


class Allowing:
    """A system on x86-64 that allows the registers of AMX or not, and counts how often it is asked."""

    machine = "x86_64"

    def __init__(self, allows):
        self.allows, self.asked = allows, 0

    def processor_features(self):
        return frozenset()

    def allow_matrix_tiles(self):
        self.asked += 1
        return self.allows


@pytest.mark.parametrize("allows", [True, False])
@pytest.mark.parametrize("given", [None, AMX_FEATURES])
def test_tiles_of_amx_are_used_where_the_processor_has_them_and_the_system_allows_them(monkeypatch, allows, given):
    system = Allowing(allows)
    monkeypatch.setattr(_processor, "HERE", system)
    monkeypatch.setattr(_processor._settings, "CPU_FEATURES", given)
    monkeypatch.setattr(_processor, "described", lambda: (tuple(sorted(AMX_WORDS)), AMX_WORDS))
    assert (_processor._amx(), _processor._dot(), system.asked) == (allows, "vnni", 1)


@pytest.mark.parametrize("lacking", sorted(AMX_WORDS))
def test_a_system_is_not_asked_for_what_the_processor_lacks(monkeypatch, lacking):
    system, left = Allowing(True), AMX_WORDS - {lacking}
    monkeypatch.setattr(_processor, "HERE", system)
    monkeypatch.setattr(_processor, "described", lambda: (tuple(sorted(left)), left))
    assert (_processor._amx(), system.asked) == (False, 0)


def test_kernels_with_tiles_of_amx_are_kept_apart_from_those_without(monkeypatch):
    found = set()
    for has in (True, False):
        monkeypatch.setattr(_processor, "AMX", has)
        found.add(_processor.target.__wrapped__())
    assert len(found) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere LLVM is asked")
@pytest.mark.parametrize("feature", ["amx-int8", "amx-tile", "avx2", "avx512f", "avx512bf16", "avx512vnni", "dotprod"])
def test_linux_and_llvm_find_the_same_features(feature):
    assert _processor.described() is not None
    assert _processor.compiles_for(feature) == _processor.cpu_features().get(feature, False)


SAID = ("CPU part: 0xd0c", "asimd", "asimddp"), frozenset({"asimd", "asimddp"})


class Llvm:
    """LLVM on such a system."""

    @staticmethod
    def get_host_cpu_features():
        return {"neon": True, "crc": True, "sve": False}

    @staticmethod
    def get_host_cpu_name():
        return "generic"

    @staticmethod
    def get_process_triple():
        return "aarch64-unknown-linux-gnu"


@pytest.fixture
def arm(monkeypatch):
    """Have another processor, of those features, which the system describes or not."""

    def become(said, *features):
        monkeypatch.setattr(_processor, "HERE", Arm(*features))
        monkeypatch.setattr(_processor, "described", lambda: said)

    monkeypatch.setattr(_processor, "llvm", lambda: Llvm)
    monkeypatch.setattr(_processor, "cpu_features", _processor.cpu_features.__wrapped__)
    return become


@pytest.mark.parametrize("said", [None, SAID])
def test_what_is_new_in_arm_processors_the_system_says_whatever_the_file_shows(arm, said):
    for features in ((), ("dotprod",), ("dotprod", "i8mm", "bf16")):
        arm(said, *features)
        found = {name for name in ("dotprod", "i8mm", "bf16", "fullfp16") if _processor.compiles_for(name)}
        assert found == set(features)
        assert _processor._dot() == ("i8mm" if "i8mm" in found else "sdot" if found else "neon")
        assert _processor._pairs() == ("bfdot" if "bf16" in found else "portable")
        assert {name for name, has in _processor.cpu_features().items() if has} == {"neon", "crc", *features}


@pytest.mark.parametrize("said", [None, SAID])
def test_kernels_are_kept_apart_by_what_the_system_says(arm, said):
    found = set()
    for features in ((), ("dotprod",), ("dotprod", "i8mm")):
        arm(said, *features)
        found.add(_processor.target.__wrapped__())
    assert len(found) == 3


def test_what_llvm_does_not_find_is_told_it(arm, monkeypatch):
    arm(None, "crc", "dotprod", "i8mm")
    assert _processor.unlisted_features.__wrapped__() == ("dotprod", "i8mm")
    monkeypatch.setattr(_processor._settings, "CPU_NAME", "neoverse-n1")  # not this one: nothing is known of it
    assert _processor.unlisted_features.__wrapped__() == ()


def test_a_function_has_all_features_in_its_list(monkeypatch):
    for added in ((), ("bf16", "i8mm")):
        monkeypatch.setattr(_llvm, "unlisted_features", lambda added=added: added)
        module = ir.Module()
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "nothing")
        ir.IRBuilder(function.append_basic_block()).ret_void()
        for _ in range(2):
            _llvm.add_attributes(cpu_target.target_context, function)
        parsed = binding.parse_assembly(str(module))
        parsed.verify()
        mine = cpu_target.target_context.codegen().magic_tuple()[2]
        assert (f'"target-features"="{mine},+bf16,+i8mm"' in str(parsed)) is bool(added)
        assert ("target-features" in str(parsed)) is bool(added)
