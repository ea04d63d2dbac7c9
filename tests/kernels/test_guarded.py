"""Tensors of these tests are alone in their pages: what a kernel does outside of one is seen."""

import ctypes
import subprocess
import sys
from pathlib import Path

import guarded
import pytest
from processes import environment

from pio.tensor import Tensor

TOUCH = """
import ctypes, sys
import guarded
memory, address = guarded.allocate(100)
place = {"inside": address + 99, "behind": address + 128, "dead": address, "far before": address - (address & 4095) - 1}
if sys.argv[1] == "dead":
    del memory
ctypes.c_char.from_address(place[sys.argv[1]]).value = b"x"
print("written", flush=True)
"""


@pytest.mark.parametrize("where", ["inside", "behind", "far before", "dead"])
def test_a_page_outside_of_a_tensor_cannot_be_written(where):
    command = [sys.executable, "-c", TOUCH, where]
    ran = subprocess.run(command, env=environment(Path(__file__).parent), capture_output=True, text=True, check=False)
    assert (ran.returncode == 0, "written" in ran.stdout) == (where == "inside",) * 2


@pytest.mark.parametrize(("offset", "said"), [(-1, "before"), (100, "behind"), (127, "behind")])
def test_what_was_written_beside_a_tensor_is_told(offset, said):
    memory, address = guarded.allocate(100)
    assert address % guarded.ALIGNMENT == 0 and ctypes.string_at(address, 100) == bytes(100)
    place = ctypes.c_ubyte.from_address(address + offset)
    kept, place.value = place.value, 7
    with pytest.raises(AssertionError, match=f"wrote {said} a tensor"):
        memory.__del__()
    place.value = kept


def test_tensors_lie_there():
    assert isinstance(Tensor.zeros((3,)).storage.owner._memory, guarded.GuardedMemory)
