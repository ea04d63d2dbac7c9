"""Object files laid into memory without LLVM: what LLVM does with them, or left to LLVM."""

import ctypes
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pio.forks import llvm
from pio.kernels import _elf, _engine, _mcjit
from pio.ops import compilation
from pio.system import HERE

pytestmark = pytest.mark.skipif(not HERE.places_objects, reason="elsewhere LLVM loads all of them")

SOURCE = """
target triple = "{triple}"
@counter = internal global i64 40
@zeros = internal global [300 x i64] zeroinitializer
@primes = internal constant [4 x i64] [i64 2, i64 3, i64 5, i64 7]
@words = internal constant [4 x ptr] [ptr @first, ptr @second, ptr getelementptr (i64, ptr @primes, i64 2), ptr @zeros]
declare double @exp(double)
declare void @qsort(ptr, i64, i64, ptr)

define internal i64 @first(i64 %x) noinline {{
  %old = load volatile i64, ptr @counter
  %new = add i64 %old, %x
  store volatile i64 %new, ptr @counter
  ret i64 %new
}}

define internal i64 @second(i64 %x) noinline {{
  %at = getelementptr [300 x i64], ptr @zeros, i64 0, i64 %x
  %old = load volatile i64, ptr %at
  store volatile i64 %x, ptr %at
  ret i64 %old
}}

define internal i32 @compare(ptr %a, ptr %b) {{
  %x = load i64, ptr %a
  %y = load i64, ptr %b
  %less = icmp slt i64 %x, %y
  %sign = select i1 %less, i32 -1, i32 1
  ret i32 %sign
}}

define i64 @{symbol}_call(i64 %which, i64 %x) {{
  %at = getelementptr [4 x ptr], ptr @words, i64 0, i64 %which
  %function = load volatile ptr, ptr %at
  %result = call i64 %function(i64 %x)
  ret i64 %result
}}

define i64 @{symbol}_read(i64 %which) {{
  %at = getelementptr [4 x ptr], ptr @words, i64 0, i64 %which
  %word = load volatile ptr, ptr %at
  %value = load i64, ptr %word
  ret i64 %value
}}

define double @{symbol}_exp(double %x) {{
  %y = call double @exp(double %x)
  %z = fmul double %y, 0.1
  ret double %z
}}

define void @{symbol}_sort(ptr %numbers, i64 %count) {{
  call void @qsort(ptr %numbers, i64 %count, i64 8, ptr @compare)
  ret void
}}
"""


def object_file(source, symbol="kernel", triple=None, codemodel="jitdefault"):
    """What LLVM makes of a source, as Numba has it make kernels."""
    binding = llvm()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    triple = triple or binding.get_process_triple()
    machine = binding.Target.from_triple(triple).create_target_machine(
        reloc="static", codemodel=codemodel, jit=codemodel == "jitdefault"
    )
    return machine.emit_object(binding.parse_assembly(source.format(triple=triple, symbol=symbol)))


def results(load, symbol):
    """What the functions of SOURCE give, twice where they remember something."""
    code = object_file(SOURCE, symbol)
    functions = {}
    for name, kind in {
        "call": ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),
        "read": ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64),
        "exp": ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double),
        "sort": ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64),
    }.items():
        functions[name] = kind(load(f"{symbol}_{name}", code))
    numbers = (ctypes.c_int64 * 5)(7, -3, 11, 0, 5)
    functions["sort"](ctypes.addressof(numbers), 5)
    call, read = functions["call"], functions["read"]
    return [call(0, 2), call(0, -12), call(1, 299), call(1, 299), read(2), read(3), functions["exp"](1.5), *numbers]


def test_code_constants_variables_and_what_is_elsewhere():
    found = results(lambda symbol, code: _elf.place(code, symbol), "by_hand")
    assert found == results(_mcjit.load, "by_llvm")
    assert found[:6] == [42, 30, 0, 299, 5, 0] and found[-5:] == [-3, 0, 5, 7, 11]


def protection(address):
    """How Linux says that memory may be used."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        begin, end, may = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
        if int(begin, 16) <= address < int(end, 16):
            return may
    raise AssertionError(hex(address))


WHERE = """
target triple = "{triple}"
@constant = internal constant [2 x i64] [i64 3, i64 4]
@variable = internal global i64 5
define ptr @{symbol}(i64 %which) {{
  %first = icmp eq i64 %which, 0
  %at = select i1 %first, ptr @constant, ptr @variable
  ret ptr %at
}}
"""


def test_nothing_that_is_run_can_be_written():
    entry = _elf.place(object_file(WHERE), "kernel")
    where = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(entry)
    assert [protection(address) for address in (entry, where(0), where(1))] == ["r-xp", "r--p", "rw-p"]


NEAR = (
    'target triple = "{triple}"\n@x = global i64 6\n'
    "define i64 @{symbol}() {{\n  %v = load i64, ptr @x\n  ret i64 %v\n}}"
)
OUTSIDE = (
    'target triple = "{triple}"\ndeclare i64 @pio_nobody_has_this()\n'
    "define i64 @{symbol}() {{\n  %v = call i64 @pio_nobody_has_this()\n  ret i64 %v\n}}"
)
OWN = NEAR.replace("global", "thread_local global")


@pytest.mark.parametrize(
    "code",
    [
        lambda: object_file(NEAR, codemodel="small"),
        lambda: object_file(OUTSIDE),
        lambda: object_file(OWN),
        lambda: object_file(NEAR, triple="aarch64-unknown-linux-gnu"),
        lambda: object_file(NEAR, triple="x86_64-apple-macosx"),
        lambda: object_file(NEAR, triple="x86_64-pc-windows-msvc"),
    ],
    ids=["short addresses", "a function of nobody", "a variable of each thread", "ARM", "Mach-O", "COFF"],
)
def test_what_is_not_known_is_left_to_llvm(code):
    with pytest.raises(_elf.Unknown):
        _elf.place(code(), "kernel")


@pytest.mark.parametrize("kind", [9, 19], ids=["SHT_REL", "SHT_RELR"])
def test_relocations_of_other_kinds_are_not_passed_over(kind):
    code = bytearray(object_file(WHERE))
    number = next(i for i, s in enumerate(_elf._File(bytes(code)).sections) if s.kind == _elf._RELOCATIONS)
    (begin,) = struct.unpack_from("<Q", code, 0x28)  # e_shoff
    struct.pack_into("<I", code, begin + number * 64 + 4, kind)  # sh_type
    with pytest.raises(_elf.Unknown):
        _elf.place(bytes(code), "kernel")


def test_a_system_that_forbids_it_is_named(monkeypatch):
    monkeypatch.setattr("pio.system.posix._mprotect", lambda: lambda *_: -1)
    with pytest.raises(PermissionError, match="MemoryDenyWriteExecute"):
        _elf.place(object_file(WHERE), "kernel")


def test_llvm_loads_what_is_left_to_it():
    address = _engine.load("pio_test_near", object_file(NEAR, "pio_test_near", codemodel="small"))
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(address)() == 6


ANSWER = """
import sys
from pio.system import HERE
HERE.places_objects = sys.argv[1] == "by hand"
import pio
with pio.load("demo") as model:
    print(model.generate("def f", max_new_tokens=9, seed=5, temperature=0.8, top_p=0.9, logprobs=2))
print("llvmlite.binding" in sys.modules)
"""


@pytest.mark.skipif(not compilation.enabled() or compilation.checked(), reason="no kernel is loaded")
def test_a_model_answers_the_same_however_its_kernels_are_loaded():
    ran = [
        subprocess.run([sys.executable, "-c", ANSWER, how], capture_output=True, text=True, check=True).stdout
        for how in ("first, which may compile", "by hand", "by LLVM")
    ]
    answers = [re.sub(r"timings=\S+\([^)]*\)|request_id='?\w+'?", "", out) for out in ran]
    (*by_hand, first), (*by_llvm, second) = (out.splitlines() for out in answers[1:])
    assert by_hand == by_llvm and (first, second) == ("False", "True")
