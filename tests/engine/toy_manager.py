"""A manager of the toy model, what is asked of it, and programs that end while it runs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

from processes import environment
from toy_model import EOS, STEP, ToyCache, ToyDetokenizer, ToyManager, ToyModel, toy_text

from pio.engine.handle import Handle
from pio.engine.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_new_tokens=9, ignore_eos=True)
PROMPTS = [[1, 2, 3], [4], list(range(5, 27)), [7] * 11, [30, 2], [9, 9, 8, 1, 0]]

PROGRAM = """
import atexit, os, sys, threading
from toy_manager import GREEDY, make
from toy_model import ToyModel
from pio.errors import CancelledError, PioError
model = ToyModel()
model.slow = True
manager = make(model)
handle = manager.submit([1], GREEDY.model_copy(update={"max_new_tokens": 60}))
model.wait_for_step()

def say(call):
    try:
        print(call())
    except PioError as error:
        print(type(error).__name__, error)
    sys.stdout.flush()
"""


def make(model: ToyModel | None = None, num_blocks: int = 40, block_size: int = 4, **options: Any) -> ToyManager:
    return ToyManager(
        model or ToyModel(),
        ToyCache(num_blocks, block_size),
        eos_token_ids=[EOS],
        detokenizer=ToyDetokenizer,
        token_text=toy_text,
        **options,
    )


def ids(handle: Handle) -> list[int]:
    return handle.result(STEP).token_ids


def worker_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "pio-batch"]


def run_python(body: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, with a model that stands in a step until it is told to go on."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=STEP,
        env=environment(Path(__file__).parent),
        check=False,
    )
