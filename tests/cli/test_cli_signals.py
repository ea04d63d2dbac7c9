"""Commands that are asked to end: they tidy up, say nothing, and end with the code that a shell reports."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pio as package

ENDLESS = ("generate", "demo", "x", "-n", "2000", "--ignore-eos")


def start(*arguments, before=None):
    command = [sys.executable, "-m", "pio", *arguments]
    return subprocess.Popen(
        command,
        cwd=Path(package.__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=before,
    )


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("arguments", [ENDLESS, ("chat", "demo")], ids=["answering", "waiting for a line"])
def test_an_end_that_is_asked_for(arguments, sent, code):
    ran = start(*arguments)
    if "chat" in arguments:
        ran.stdin.write(b"hello\n")
        ran.stdin.flush()
    assert os.read(ran.stdout.fileno(), 1)
    ran.send_signal(sent)
    _, errors = ran.communicate(timeout=60)
    assert (ran.returncode, errors) == (code, b"")


def test_what_nohup_lets_pass_is_let_pass():
    ran = start(*ENDLESS, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert os.read(ran.stdout.fileno(), 1)
    ran.send_signal(signal.SIGHUP)
    assert os.read(ran.stdout.fileno(), 1)
    ran.send_signal(signal.SIGTERM)
    ran.communicate(timeout=60)
    assert ran.returncode == 143
