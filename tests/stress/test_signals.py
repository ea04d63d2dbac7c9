"""Signals at random moments, whatever a program does with a model: no hang, and no error but the one raised."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stress

HERE = Path(__file__).parent
GIVE_UP = 60.0  # seconds after which the program hangs
SENT = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
# How a program may end: what it says.
ENDS = {
    "limit": {"ready TimeLimit done"},
    "clean": {"ready CancelledError done", "ready PioError done"},
    "use": {"ready TimeLimit done"},
    "interrupt": {"ready KeyboardInterrupt done"},
    "terminate": {"ready"},
}


@pytest.mark.parametrize("kind", list(ENDS))
def test_a_signal_at_a_random_moment(sizes, tmp_path, kind):
    rng = random.Random(kind)
    for round_ in range(-(-sizes.signals // len(ENDS))):
        seed = rng.randrange(1 << 30)
        program = subprocess.Popen(
            [sys.executable, str(HERE / "signalled.py"), kind, str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        )
        assert program.stdout is not None
        first = program.stdout.readline()
        if kind in SENT:
            with pytest.raises(subprocess.TimeoutExpired):
                program.wait(timeout=rng.random() * 0.2)
            program.send_signal(SENT[kind])
        try:
            out, err = program.communicate(timeout=GIVE_UP)
        except subprocess.TimeoutExpired:
            program.kill()
            pytest.fail(f"it hangs: {kind} {seed}, round {round_}; it had said {program.communicate()}")
        assert (" ".join((first + out).split()) in ENDS[kind], program.returncode, err) == (True, 0, ""), (
            f"{kind} {seed}"
        )
