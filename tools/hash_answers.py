"""Print hashes of what pio answers: a change that is to keep all bits prints the same lines before and after.

    python tools/hash_answers.py > before.txt              # with words behind it: only what has one of them in its name
    PYTHONPATH=/another/checkout python tools/hash_answers.py > after.txt && diff before.txt after.txt

A line for each golden checkpoint and the demo model in each set of options: a hash of the logits of all prompts, one of
the greedy tokens with their log probabilities, alone and together, and one of sampled tokens.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pio

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accuracy": {"profile": "accuracy"},
    "performance": {"profile": "performance"},
    "int8": {"quantize": "int8"},
    "int4": {"quantize": "int4"},
    "int4_zero_point": {"quantize": "int4_zero_point", "kv_cache_dtype": "float32"},
    "int8_cache": {"kv_cache_dtype": "int8"},
    "chunked": {"prefill_chunk": 7, "threads": 1},
}
NEW_TOKENS = 24


def cases() -> Iterator[tuple[str, list[Any]]]:
    """Yield folders and their prompts."""
    for folder in sorted(path.parent for path in GOLDEN.glob("*/*/config.json")):
        if (folder / "expected" / "requests.json").exists():
            yield str(folder), seeing(folder)
            continue
        stored = json.loads((folder / "expected" / "greedy.json").read_text("utf-8"))
        prompts = [prompt["ids"] for prompt in stored["prompts"]]
        longest = max(prompts, key=len)
        yield str(folder), [*prompts, *(longest[:n] for n in (1, 3, 31, 32, 33)), longest[1:]]
    yield "demo", [[1 + 7919 * (i + n) % 4000 for i in range(n)] for n in (1, 5, 33, 300)]


def seeing(folder: Path) -> list[Any]:
    """Return the prompts of a folder with pictures: token ids, and what their marks stand for."""
    stored = json.loads((folder / "expected" / "requests.json").read_text("utf-8"))
    files, prompts = folder / "pictures", list[Any]()
    for request in stored["requests"]:
        images = [files / name for name in request.get("pictures", ())]
        videos = [
            {"video": [files / name for name in video["frames"]], "fps": video["fps"]}
            for video in request.get("videos", ())
        ]
        prompts.append({"text": request["prompt"], "images": images, "videos": videos})
    return prompts


def hashed(data: bytes) -> str:
    """Return a hash that fits a line."""
    return hashlib.sha256(data).hexdigest()[:24]


def answers(model: pio.TextModelPlugin, prompts: list[Any]) -> tuple[str, str, str]:
    """Return hashes of logits, of greedy and of sampled answers."""
    logits = b"".join(model.logits(ids).memoryview().tobytes() for ids in prompts)
    fields: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "ignore_eos": True}
    greedy = [model.generate(ids, temperature=0.0, logprobs=2, **fields) for ids in prompts]
    greedy += model.infer_batch(prompts, temperature=0.0, logprobs=2, **fields)
    sampled = model.infer_batch(prompts, temperature=0.9, top_p=0.9, top_k=20, seed=7, **fields)
    drawn = repr([answer.token_ids for answer in sampled])
    found = repr([[(token.token_id, token.logprob, token.top) for token in answer.logprobs or ()] for answer in greedy])
    return hashed(logits), hashed(found.encode()), hashed(drawn.encode())


def main(wanted: list[str]) -> None:
    """Print a line for each checkpoint and set of options.

    Args:
        wanted: Parts of the names of those that are wanted; all where there are none.
    """
    print(f"# {pio.__file__}", file=sys.stderr)
    for path, prompts in cases():
        name = "/".join(Path(path).parts[-2:])
        if wanted and not any(word in name for word in wanted):
            continue
        for kind, options in OPTIONS.items():
            with pio.load(path, **options) as model:
                print(name, kind, *answers(model, prompts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
