"""Where the system refuses memory the error says so, wherever that was, and the process goes on."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest

import pio
from pio.engine.runner import deliverable
from pio.loading.model_file import unreadable
from pio.memory.refusal import memory_refused

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
CHILD = """
import json, resource, sys, tempfile
from pathlib import Path
import pio

pio.load("demo", progress=False).cleanup()  # everything is imported and compiled
with tempfile.TemporaryDirectory() as name:
    pio.quantize("demo", Path(name) / "first", progress=False)
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    found = []
    for spare in (0, 1, 2, 4, 8, 14, 24, 40):
        resource.setrlimit(resource.RLIMIT_AS, (taken + (spare << 20), resource.RLIM_INFINITY))
        for act in (
            lambda: pio.load("demo", dtype="float32", progress=False).cleanup(),
            lambda: pio.load("demo", quantize="int4", progress=False).cleanup(),
            lambda: pio.quantize("demo", Path(name) / f"made{spare}", progress=False),
        ):
            try:
                act()
                found.append("fits")
            except pio.PioError as error:
                found.append(f"{type(error).__name__}: {error}")
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with pio.load("demo", progress=False) as model:
        model.generate("def f", max_new_tokens=2)
print(json.dumps(found))
"""


def test_a_process_with_little_memory() -> None:
    run = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert any(text.startswith("OutOfMemoryError") for text in found)
    assert [text for text in found if text != "fits" and not text.startswith("OutOfMemoryError")] == []
    assert not any("download" in text or "damaged" in text for text in found)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "no memory"), OSError(errno.EAGAIN, "again")])
def test_refused_memory_is_told_from_other_errors(error: Exception, tmp_path) -> None:
    assert isinstance(memory_refused(error, "testing"), pio.OutOfMemoryError)
    assert isinstance(deliverable(error), pio.OutOfMemoryError)
    if isinstance(error, OSError):
        assert isinstance(unreadable(tmp_path, error), pio.OutOfMemoryError)


def test_other_errors_stay_what_they_are(tmp_path) -> None:
    error = OSError(errno.EIO, "input/output error")
    assert memory_refused(error, "testing") is None and memory_refused(ValueError("x"), "testing") is None
    assert isinstance(unreadable(tmp_path, error), pio.CheckpointError)
    assert not isinstance(deliverable(error), pio.OutOfMemoryError)
