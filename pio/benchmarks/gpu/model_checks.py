"""Whole models on a GPU: with random weights at their true shapes, and those of folders with expected answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pio.benchmarks.gpu.check import Check, Finding
from pio.benchmarks.gpu.decode_step import DecodeStep, Held
from pio.benchmarks.gpu.subject import relative_error, same_bits
from pio.benchmarks.random_model import cut, random_model
from pio.benchmarks.subject import token_ids
from pio.loading.safetensors import SafetensorsFile
from pio.machine import available_memory
from pio.ops.attention import BLOCK_SIZE
from pio.ops.quantized import FORMATS
from pio.plugin import TextModelPlugin
from pio.plugin.loader import load
from pio.tensor import Tensor

SPEED_AIMS: Final = {
    "Qwen3-0.6B": 800.0,
    "Qwen3-4B": 300.0,
    "Qwen3-Coder-30B": 250.0,
    "Qwen3-Coder-Next": 220.0,
    "GLM-4.7-Flash": 200.0,
}  # tokens a second on one H200
WITHIN: Final = 2e-3  # of logits, by their length as vectors
# Where activations are quantized, a last bit of a norm turns one number to the next, and layers behind it many: moving
# epsilon by a part in 2,000 moves the logits of four int4 layers by 1 to 3 % on a CPU. How exact each operation is,
# ``agreement`` finds out.
TURNED: Final = 0.1
PROMPT: Final = 96  # tokens whose logits are compared
ROOM: Final = 0.8  # of free memory that weights may take
GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}


def models(check: Check) -> Iterator[Finding]:
    """Load each model, read a prompt, answer; with fewer layers where memory is short."""
    for name, (raw, quantize) in check.shapes.models.items():
        if not check.over(name):
            yield from _model(check, name, raw, quantize)


def _model(check: Check, name: str, raw: dict[str, Any], quantize: str | None) -> Iterator[Finding]:
    prompt, answer = check.shapes.context
    layers, of = _layers(check, raw, quantize), raw["num_hidden_layers"]
    shape = cut(raw, layers)
    label = name if layers == of else f"{name}, {layers} of {of} layers"
    options: dict[str, Any] = _options(prompt + answer) | {"device": str(check.device)}
    began = time.perf_counter()
    with random_model(shape, quantize=quantize, **options) as model:
        yield Finding(f"{label}: load with random weights", time.perf_counter() - began, "s")
        ids = token_ids(model, prompt)
        model.generate(ids, max_new_tokens=2, **GREEDY)  # the first steps of each shape are recorded
        first = model.generate(ids, max_new_tokens=answer, **GREEDY)
        again = model.generate(ids, max_new_tokens=answer, **GREEDY)
        timings = again.timings
        yield Finding(f"{label}: prompt of {prompt}", prompt / timings.prefill, "token/s")
        speed = timings.tokens_per_second
        aim = SPEED_AIMS.get(name)
        what = f"{label}: answer of {answer} behind {prompt}"
        aimed = aim is not None and layers == of
        yield check.speed(what, speed, "token/s", aim) if aimed and aim else Finding(what, speed, "token/s")
        yield Finding.equal(f"{label}: the same answer again", int(first.token_ids == again.token_ids), 1)
        batch = model.infer_batch([ids, ids[: prompt // 2 + 1], ids[::-1]], max_new_tokens=answer, **GREEDY)
        same = batch[0].token_ids == first.token_ids
        yield Finding.equal(f"{label}: the same answer beside others", int(same), 1)
        yield from _memory(check, label, model)


def _options(context: int) -> dict[str, Any]:
    """Room for three sequences of that length, and no drafts, which random weights' answers would be full of."""
    tokens = 3 * BLOCK_SIZE * (2 + context // BLOCK_SIZE)
    return {"context_length": context + 1, "cache_tokens": tokens, "speculation": "off", "prefix_cache": False}


def _memory(check: Check, label: str, model: TextModelPlugin) -> Iterator[Finding]:
    held = model.loaded.memory
    for part in ("weights", "cache"):
        yield Finding(f"{label}: {part}", held[part] / 1e9, "GB")
    stream = check.device.stream
    assert stream is not None
    yield Finding(f"{label}: held on the GPU", sum(stream.held.copy().values()) / 1e9, "GB")


def _layers(check: Check, raw: dict[str, Any], quantize: str | None) -> int:
    """Return how many layers fit on the GPU; what is not quantized there also passes through this machine's memory."""
    stream, count = check.device.stream, int(raw["num_hidden_layers"])
    assert stream is not None
    free, here = [stream.room()], available_memory()
    if quantize is None and here is not None:
        free.append(here)
    held = Held.of("bfloat16", quantize)

    def need(layers: int) -> int:
        return DecodeStep(cut(raw, layers), held, sum(check.shapes.context), stream.multiprocessors).weights_bytes()

    least = int(raw.get("full_attention_interval", 1))  # of layers of two kinds both have to be there
    while count > least and need(count) > ROOM * min(free):
        count -= 1
    return count


def logits(check: Check) -> Iterator[Finding]:
    """Compare the logits of a few layers of each model with the CPU's, and those of a prompt with its beginning's."""
    for name, (raw, quantize) in check.shapes.models.items():
        if check.over(f"{name}: logits"):
            continue
        shape = cut(raw, min(check.shapes.layers, raw["num_hidden_layers"]))
        tokens = min(check.shapes.context[0], PROMPT)
        wanted, _ = _logits(shape, quantize, "cpu", tokens)
        there, begun = _logits(shape, quantize, str(check.device), tokens)
        label = f"{name}, {shape['num_hidden_layers']} layers: logits"
        yield Finding.right(f"{label} against the CPU's", relative_error(there, wanted), _within(quantize is not None))
        same = same_bits([begun], [there[: begun.shape[0]].contiguous()])
        yield Finding.equal(f"{label} of a prompt and of its beginning", int(same), 1)


def _logits(raw: dict[str, Any], quantize: str | None, device: str, tokens: int) -> tuple[Tensor, Tensor]:
    """Return the logits of a prompt, and of a beginning that ends in no whole piece of it."""
    options: dict[str, Any] = _options(tokens + 1) | {"device": device, "prefill_chunk": max(2, tokens // 3)}
    with random_model(raw, quantize=quantize, **options) as model:
        ids = token_ids(model, tokens)
        return model.logits(ids).to("cpu"), model.logits(ids[: tokens // 2 + 1]).to("cpu")


def _within(quantized: bool) -> float:
    return TURNED if quantized else WITHIN


def checkpoints(check: Check) -> Iterator[Finding]:
    """Load folders; compare logits with those that lie beside them in ``expected``, or else with the CPU's."""
    for folder in check.checkpoints:
        if not check.over(str(folder)):
            yield from _checkpoint(check, folder)


def _checkpoint(check: Check, folder: Path) -> Iterator[Finding]:
    asked = folder / "expected" / "greedy.json"
    with load(folder, device=str(check.device), prefix_cache=False, speculation="off") as model:
        within = _within(model.loaded.formats.get("layers", "") in FORMATS)
        if not asked.exists():
            ids = token_ids(model, check.shapes.context[0])
            there = model.logits(ids).to("cpu")
            with load(folder, device="cpu", prefix_cache=False, speculation="off") as other:
                error = relative_error(there, other.logits(ids))
            yield Finding.right(f"{folder.name}: logits against the CPU's", error, within)
            return
        prompts, right = json.loads(asked.read_text("utf-8"))["prompts"], 0
        wanted = _expected(folder / "expected" / "logits.safetensors")
        for i, prompt in enumerate(prompts):
            error = relative_error(model.logits(prompt["ids"]).to("cpu"), wanted[f"logits.{i}"])
            yield Finding.right(f"{folder.name}: logits of {len(prompt['ids'])} tokens", error, within)
            answer = model.generate(prompt["ids"], max_new_tokens=len(prompt["greedy"]), **GREEDY)
            right += list(answer.token_ids) == prompt["greedy"]
        yield Finding(f"{folder.name}: greedy answers", f"{right} of {len(prompts)}", "", "all", right == len(prompts))


def _expected(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of float32."""
    file = SafetensorsFile(path)
    return {name: file.tensor(name) for name in file.names}
