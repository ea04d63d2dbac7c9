"""Commands that are asked to end: they tidy up, say nothing, and end with the code that a shell reports."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from needs import needs_signals, on_windows
from processes import FOLDER, Program

import pio
from pio.system import HERE

ENDLESS = ("generate", "demo", "x", "-n", "2000", "--ignore-eos")
CODES = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143, "SIGBREAK": 149}


@pytest.fixture(scope="module", autouse=True)
def compiled():
    with pio.load("demo") as model:  # or a program would say that it compiles
        model.generate("x", max_new_tokens=1)


@pytest.mark.parametrize("sent", [signal.SIGINT, *HERE.ending_signals], ids=lambda sent: signal.Signals(sent).name)
@pytest.mark.parametrize("arguments", [ENDLESS, ("chat", "demo")], ids=["answering", "waiting for a line"])
def test_an_end_that_is_asked_for(arguments, sent):
    ran = Program("pio", *arguments)
    if "chat" in arguments:
        ran.process.stdin.write(b"hello\n")
        ran.process.stdin.flush()
    assert ran.first_byte()
    ran.send(sent)
    assert ran.end() == (CODES[signal.Signals(sent).name], b"")


def test_ctrl_c_while_a_prompt_is_waited_for():
    ran = Program("pio", "generate", "demo", "-")
    assert ran.process.stderr.readline().rstrip() == b"reading the prompt from standard input"
    ran.send(signal.SIGINT)
    ran.process.wait(60)  # though the pipe is open
    assert ran.end() == (130, b"")


@needs_signals
def test_what_nohup_lets_pass_is_let_pass():
    ran = Program("pio", *ENDLESS, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert ran.first_byte()
    ran.send(signal.SIGHUP)
    assert ran.first_byte()
    ran.send(signal.SIGTERM)
    assert ran.end() == (143, b"")


# What Windows does as a console is closed: it calls this, in a thread of its own, and ends the process when it returns.
CLOSED = """
import os, sys, threading
from pio.system import windows_console

def close():
    os.read(0, 1)
    windows_console.on_event(2)
    os._exit(77)

threading.Thread(target=close, daemon=True).start()
from pio.cli import main
main()
"""


# Windows tells services of every user who logs off; to it 5 is that, and 6 that the machine is shut down.
LOGGED_OFF = """
import signal, threading
from pio.system import windows_console

def told(number, frame):
    raise SystemExit(signal.Signals(number).name)

signal.signal(signal.SIGBREAK, told)
windows_console.is_service = lambda: True
print(windows_console.on_event(5), flush=True)
threading.Thread(target=windows_console.on_event, args=(6,), daemon=True).start()
threading.Event().wait(60)
"""


@on_windows
def test_a_service_goes_on_when_a_user_logs_off_and_ends_with_the_machine():
    ran = subprocess.run([sys.executable, "-c", LOGGED_OFF], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "True\n", "SIGBREAK\n")


@on_windows
@pytest.mark.parametrize(("said", "session", "expected"), [(1, 0, True), (1, 2, False), (0, 0, False)])
def test_services_have_a_session_of_their_own(monkeypatch, said, session, expected):
    from pio.system import windows_console

    def ask(process, into):
        into._obj.value = session
        return said

    system = SimpleNamespace(GetCurrentProcessId=lambda: 7, ProcessIdToSessionId=ask)
    monkeypatch.setattr(windows_console, "_system", system)
    assert windows_console.is_service() is expected


@on_windows
def test_a_console_that_is_closed_is_held_until_the_process_has_ended():
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    ran = subprocess.Popen([sys.executable, "-c", CLOSED, *ENDLESS], cwd=FOLDER, **pipes)
    assert os.read(ran.stdout.fileno(), 1)
    _, errors = ran.communicate(b"x", timeout=60)
    assert (ran.returncode, errors) == (149, b"")
