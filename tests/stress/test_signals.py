"""Signals at random moments, whatever a program does with a model: no hang, and no error but the one raised."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path

import pytest
from processes import Program, environment

pytestmark = pytest.mark.stress

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
        program = Program("signalled", kind, seed, text=True, cwd=tmp_path, env=environment(Path(__file__).parent))
        process = program.process
        first = process.stdout.readline()
        if kind in SENT:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=rng.random() * 0.2)
            program.send(SENT[kind])
        try:
            with program:
                out, err = process.communicate(timeout=GIVE_UP)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"it hangs: {kind} {seed}, round {round_}; it had said {process.communicate()}")
        assert (" ".join((first + out).split()) in ENDS[kind], process.returncode, err) == (True, 0, ""), (
            f"{kind} {seed}"
        )
