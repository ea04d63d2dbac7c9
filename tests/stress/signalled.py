"""A program that uses a model until a signal comes, at a moment that its seed decides: run by test_signals.py.

It prints how it ended: the name of an exception that it let out of pio, or "done".
"""

from __future__ import annotations

import random
import signal
import sys
import threading
from contextlib import suppress

import pio


class TimeLimit(BaseException):
    """What the handler of a time limit raises."""


def wait_for_results(model):
    while True:
        model.infer_batch(["x", [7] * 100], max_new_tokens=100, ignore_eos=True)


def read_streams(model):
    while True:
        for _ in model.stream("x", max_new_tokens=100, ignore_eos=True):
            pass


def submit_and_wait(model):
    while True:
        model.submit([7] * 150, max_new_tokens=20, ignore_eos=True).result(timeout=10**12)


def score(model):
    while True:
        model.logits([7] * 90)


def change(model):
    for chunk in range(1, 100_000):
        model.update(prefill_chunk=1 + chunk % 50)
        model.generate("x", max_new_tokens=1)


def load_again(model):
    while True:
        model.load_model()
        model.generate("x", max_new_tokens=1)


ASK = [wait_for_results, read_streams, submit_and_wait, score]
LOAD = [change, load_again]


ALARM = getattr(signal, "SIGALRM", None) or signal.SIGBREAK


def alarm(seconds: float) -> None:
    """Have ALARM come, once; 0 takes that back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
    elif seconds:
        timer = threading.Timer(seconds, signal.raise_signal, (ALARM,))
        timer.daemon = True
        timer.start()
    else:
        signal.signal(ALARM, signal.SIG_IGN)


def main() -> None:
    kind, rng = sys.argv[1], random.Random(int(sys.argv[2]))
    model = pio.load("demo", context_length=256)
    model.generate("x", max_new_tokens=1)

    def limit(*_: object) -> None:
        raise TimeLimit

    def leave(*_: object) -> None:
        model.cleanup()
        sys.exit(0)

    def clean(*_: object) -> None:
        model.cleanup()

    def use(*_: object) -> None:  # whatever a handler may do with a model
        with suppress(pio.CancelledError):  # by the update that this handler may have interrupted
            handle = model.submit("y", max_new_tokens=50)
            next(iter(handle), None)
            handle.cancel()
        model.update(prefill_chunk=60)
        raise TimeLimit

    signal.signal(ALARM, {"limit": limit, "clean": clean, "use": use}.get(kind, signal.SIG_DFL))
    signal.signal(signal.SIGTERM, leave)
    # one that loads for ever would load again what a handler cleaned up between two loads, and never hear of it
    work = rng.choice(ASK + (LOAD if kind != "clean" else [change]))
    print("ready", flush=True)
    try:
        if kind in ("limit", "clean", "use"):
            alarm(1e-4 + rng.random() * 0.1)
        work(model)
    except (TimeLimit, KeyboardInterrupt, pio.PioError) as error:
        alarm(0)
        print(type(error).__name__, flush=True)
        if not model.is_loaded and work is load_again:  # the load that the exception ended
            model.load_model()
        if kind != "clean":  # the model goes on
            assert len(model.generate([1, 2], max_new_tokens=3, ignore_eos=True).token_ids) == 3
    print("done", flush=True)


main()
