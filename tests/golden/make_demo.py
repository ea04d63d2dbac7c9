"""Store what transformers says about the demo model: greedy text, logits, held-out perplexity.

    python tests/golden/make_demo.py [FIGURES.json]      (needs the extra `oracle`; writes demo.json beside this file)

FIGURES.json, the figures of the training run, is compared with the result when given.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import GenerationConfig, Qwen3ForCausalLM

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent.parent / "pio" / "demo"
NEW_TOKENS = 64
WINDOW, WINDOWS = 512, 60
PROMPTS = [
    "def fibonacci(n):",
    'import os\n\ndef read_lines(path):\n    """Return the lines of a file."""\n',
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "<|im_start|>user\nWrite a Python function `add`: Return the sum of a and b. /think<|im_end|>\n"
    "<|im_start|>assistant\n",
    "<|im_start|>user\nReturn the last element of a list. Write it as a Python function named last.<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "<|fim_prefix|>def area(width, height):\n    <|fim_suffix|>\n\nprint(area(2, 3))\n<|fim_middle|>",
]


def sample(model: Qwen3ForCausalLM, tokenizer: Tokenizer, prompt: str) -> dict[str, Any]:
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    tensor = torch.tensor([ids])
    out = model.generate(
        tensor,
        attention_mask=torch.ones_like(tensor),
        generation_config=GenerationConfig(do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=0),
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = out.sequences[0, len(ids) :].tolist()
    best = torch.cat(out.logits).topk(2).values
    return {
        "prompt": prompt,
        "ids": ids,
        "greedy": tokens,
        "text": tokenizer.decode(tokens, skip_special_tokens=False),
        "smallest_margin": round((best[:, 0] - best[:, 1]).min().item(), 4),
    }


def last_logits(model: Qwen3ForCausalLM, ids: list[int]) -> dict[str, Any]:
    row = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
    best = row.topk(50)
    return {
        "ids": ids,
        "top_ids": best.indices.tolist(),
        "top_logits": [round(v, 6) for v in best.values.tolist()],
        "sum": round(row.sum().item(), 4),
        "norm": round(row.norm().item(), 5),
    }


def held_out(model: Qwen3ForCausalLM, tokenizer: Tokenizer) -> dict[str, Any]:
    """Mean negative log-likelihood of each window of 512 tokens, every window on its own."""
    ids = tokenizer.encode((HERE / "heldout.txt").read_text("utf-8"), add_special_tokens=False).ids
    windows = []
    for start in range(0, WINDOW * WINDOWS, WINDOW):
        rows = model(torch.tensor([ids[start : start + WINDOW]]), use_cache=False).logits[0]
        target = torch.tensor(ids[start + 1 : start + 1 + WINDOW])
        windows.append(torch.nn.functional.cross_entropy(rows.double(), target).item())
    mean = math.fsum(windows) / len(windows)
    return {
        "tokens in the text": len(ids),
        "sha256 of the token ids": hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest(),
        "window": WINDOW,
        "nats": round(mean, 5),
        "perplexity": round(math.exp(mean), 4),
        "nats by window": [round(w, 6) for w in windows],
    }


def compare(result: dict[str, Any], figures: dict[str, Any]) -> None:
    nats = next(v for k, v in figures.items() if k.startswith("held-out nats"))
    if abs(nats - result["held out"]["nats"]) > 1e-4:
        raise SystemExit(f"held-out nats: {result['held out']['nats']}, the figures say {nats}")
    for ours, theirs in zip(result["samples"], figures["samples"], strict=True):
        if (ours["prompt"], ours["greedy"]) != (theirs["prompt"], theirs["greedy token ids"]):
            raise SystemExit(f"another greedy answer than in the figures: {ours['prompt']!r}")
        if ours["text"] != theirs["text"]:
            raise SystemExit(f"another text than in the figures: {ours['prompt']!r}")
    print("agrees with the figures of the training run")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path, nargs="?")
    figures = parser.parse_args().figures
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    model = Qwen3ForCausalLM.from_pretrained(DEMO, dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config = GenerationConfig()  # greedy, and no end of sequence
    samples = [sample(model, tokenizer, prompt) for prompt in PROMPTS]
    result = {
        "made with": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]},
        "samples": samples,
        "last logits": [last_logits(model, samples[i]["ids"] + samples[i]["greedy"]) for i in (1, 3)],
        "held out": held_out(model, tokenizer),
    }
    (HERE / "demo.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print([s["smallest_margin"] for s in samples], result["held out"]["nats"])
    if figures:
        compare(result, json.loads(figures.read_text("utf-8")))


if __name__ == "__main__":
    main()
