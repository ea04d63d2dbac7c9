"""What takes processes of its own: a first token in a new one, and models in other libraries on the same GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Final

from pio.benchmarks.gpu.check import Check, Finding
from pio.errors import PioError
from pio.system import HERE

START_AIM: Final = 3.0  # seconds until a process whose kernels are compiled has a token
SLOWEST: Final = 240.0  # seconds that a process may take
LEAST: Final = 30.0  # that there must be for one

# Random weights of a config in transformers: {model_type, ...fields}, a prompt of so many tokens, an answer of so many.
TRANSFORMERS: Final = """
import json, sys, time
import torch
from transformers import AutoConfig, AutoModelForCausalLM
asked = json.loads(sys.argv[1])
device, prompt, answer = asked["device"], asked["prompt"], asked["answer"]
fields = dict(asked["config"])
config = AutoConfig.for_model(fields.pop("model_type"), **fields)
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
with torch.device(device):
    model = AutoModelForCausalLM.from_config(config).eval()
ids = torch.randint(1, config.vocab_size - 1, (1, prompt), device=device)
wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
def seconds(count):
    wait()
    began = time.perf_counter()
    with torch.no_grad():
        model.generate(ids, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)
    wait()
    return time.perf_counter() - began
seconds(2)
first, whole = min(seconds(1) for _ in range(2)), min(seconds(1 + answer) for _ in range(2))
print(json.dumps({"prompt": prompt / first, "decode": answer / max(whole - first, 1e-9)}))
"""


def start(check: Check) -> Iterator[Finding]:
    """Start processes that load the demo model and answer: the first may have to compile kernels."""
    for what in ("a new process", "another, with compiled kernels"):
        if check.over(f"first token of {what}", LEAST):
            continue
        began = time.perf_counter()
        found = _asked(check, ["-m", "pio.benchmarks.gpu.first_token", "demo", str(check.device)])
        whole = time.perf_counter() - began
        named = f"first token of {what}"
        aimed = what.startswith("another")
        yield check.short(named, whole, "s", START_AIM) if aimed else Finding(named, whole, "s")
        for part in ("import", "load", "token", "second"):
            yield Finding(f"{what}: {part}", found[part], "s")


def peers(check: Check) -> Iterator[Finding]:
    """Run the same shapes in transformers, where that and torch are installed."""
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        yield Finding("transformers", f"{' and '.join(missing)} not installed")
        return
    device = str(check.device) if check.device.stream is not None else "cpu"
    for name in check.shapes.peers or tuple(check.shapes.models)[:1]:
        if check.over(f"transformers, {name}", LEAST):
            continue
        prompt, answer = check.shapes.context
        asked = {"config": check.shapes.models[name][0], "device": device, "prompt": prompt, "answer": answer}
        found = _asked(check, ["-c", TRANSFORMERS, json.dumps(asked)])
        yield Finding(f"transformers, {name}: prompt of {prompt}", found["prompt"], "token/s")
        yield Finding(f"transformers, {name}: answer of {answer} behind {prompt}", found["decode"], "token/s")


def _asked(check: Check, arguments: list[str]) -> dict[str, Any]:
    """Run a Python of this installation, and return the JSON that it writes last.

    Raises:
        PioError: It failed, or took too long.
    """
    allowed = max(LEAST, min(SLOWEST, check.until - time.monotonic()))
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=allowed,
            stdin=subprocess.DEVNULL,
            check=False,
            **HERE.child_options,
        )
    except subprocess.TimeoutExpired as error:
        raise PioError(f"a process took more than {allowed:.0f} s and was ended; give more --minutes") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise PioError(f"a process ended with {done.returncode}: {last}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
