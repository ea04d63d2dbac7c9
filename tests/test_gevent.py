"""Where gevent puts greenlets in the place of threads: the same answers, and waits that limits and kills end."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from processes import environment

import pio

pytest.importorskip("gevent")

LONG = 120.0  # seconds after which it hangs
GREEDY = {"max_new_tokens": 8, "temperature": 0, "ignore_eos": True}


def run_patched(body):
    setup = """
        from gevent import monkey; monkey.patch_all()
        import gevent, os, pio, signal, sys, time
        sys.stderr = open(os.devnull, "w")  # gevent writes of greenlets that fail
        greedy = {"max_new_tokens": 8, "temperature": 0, "ignore_eos": True}
        endless = {"max_new_tokens": 1900, "ignore_eos": True}
    """
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(setup) + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=LONG,
        env=environment(),
        check=False,
    )


def test_greenlets_load_generate_and_stream():
    done = run_patched(
        """
        models = [job.get() for job in [gevent.spawn(pio.load, "demo", threads=2) for _ in range(2)]]
        order = []

        def read(i):
            for piece in models[i % 2].stream("import os", **greedy):
                order.append(i)
            return models[i % 2].generate_text("import os", **greedy)

        print([job.get() for job in [gevent.spawn(read, i) for i in range(4)]])
        chunk = models[0].update(prefill_chunk=5).prefill_chunk
        print(order != sorted(order), models[0].logits([1, 2, 3]).shape, chunk)
        for model in models:
            model.cleanup()
        """
    )
    with pio.load("demo") as model:
        text = model.generate_text("import os", **GREEDY)
    assert (done.returncode, done.stdout) == (0, f"{[text] * 4}\nTrue (3, 4096) 5\n")


def test_what_ends_a_greenlets_wait_ends_its_request():
    done = run_patched(
        """
        model = pio.load("demo", max_batch_sequences=1)
        handle = model.submit("x", **endless)
        try:
            with gevent.Timeout(0.05):
                handle.result()
        except gevent.Timeout:
            print("timeout", handle.done)
        killed = gevent.spawn(model.generate_text, "x", **endless)
        gevent.sleep(0.05)
        killed.kill()
        print("killed")

        def press():
            time.sleep(0.1)
            signal.raise_signal(signal.SIGINT)

        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
        else:
            gevent.get_hub().threadpool.spawn(press)  # a thread that is one
        try:
            model.generate("y", **endless)
        except KeyboardInterrupt:
            print("interrupted")
        print(len(model.generate("y", **greedy).token_ids))
        closed = gevent.spawn(model.generate_text, "x", **endless)
        gevent.sleep(0.05)
        model.cleanup()
        try:
            closed.get()
        except pio.CancelledError:
            print("cancelled")
        left = pio.load("demo").stream("x", **endless)
        next(left)
        """
    )
    assert (done.returncode, done.stdout) == (0, "timeout True\nkilled\ninterrupted\n8\ncancelled\n")
