"""The registers of AMX, which Linux gives to those who ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pio.system import HERE
from pio.system.interface import System

if sys.platform != "linux":
    pytest.skip("only Linux has to be asked", allow_module_level=True)

from pio.system.linux import Linux

HAS = HERE.machine == "x86_64" and "amx_tile" in Path("/proc/cpuinfo").read_text("utf-8").split()
needs_amx = pytest.mark.skipif(not HAS, reason="the processor has no AMX")


def run(code: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.split()


def test_other_systems_have_none() -> None:
    assert not System.allow_matrix_tiles(HERE)


def test_other_processors_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    system = Linux()
    monkeypatch.setattr(system, "machine", "aarch64")
    assert not system.allow_matrix_tiles()


@pytest.mark.skipif(HAS or HERE.machine != "x86_64", reason="the processor has AMX, or is none of x86")
def test_a_processor_without_amx_is_refused() -> None:
    assert not HERE.allow_matrix_tiles()


STACK = """
import ctypes
class Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(4096)
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(ctypes.addressof(memory), 0, 4096)), None) == 0
"""


@needs_amx
def test_who_handles_signals_on_a_small_stack_computes_without() -> None:
    """A signal would write the registers there."""
    look = "from pio.kernels import _processor, _image, sizes; print(_processor.AMX, sizes.STARTS > 0, 'tiles' in "
    look += "_processor.target())"
    allowed, refused = run(look), run(STACK + look)
    assert allowed == ["True"] * 3
    assert refused == ["False"] * 3


@needs_amx
def test_the_registers_can_be_used_in_forked_children_and_other_threads_with_signals_on_a_stack() -> None:
    code = """
import faulthandler, os, sys, threading
faulthandler.enable()
from pio.device import Device
from pio.ops import roofline
def look():
    assert roofline.multiplies_tiles()
    assert roofline.tile_all(3, 1, device=Device("cpu", 1))[0].tolist() == [3 * 256 * 64 * 3 * 3]
look()
faulthandler.disable()
faulthandler.enable()
thread = threading.Thread(target=look)
thread.start()
thread.join()
child = os.fork()
if child == 0:
    look()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(code) == ["7"]


@needs_amx
def test_kernels_for_a_processor_that_is_named_have_what_that_one_has() -> None:
    code = "import os; os.environ['NUMBA_CPU_NAME'] = 'cascadelake'; os.environ['NUMBA_CPU_FEATURES'] = {!r}\n"
    code += "from pio.kernels import _processor; print(_processor.AMX, _processor.DOT)"
    usual = "+avx2,+avx512f,+avx512vnni"
    assert run(code.format(usual)) == ["False", "vnni"]
    assert run(code.format(usual + ",+amx-tile,+amx-int8")) == ["True", "vnni"]
