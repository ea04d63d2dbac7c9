"""What it costs that answers have a shape: the time of a token with and without, of several answers that run together.

python -m benchmarks.shaped_answers FOLDER [--schema FILE] [--together 8] [--tokens 96] [--rounds 9] [OPTION=VALUE ...]

FOLDER has a config.json and a tokenizer.json; weights are random, so that answers are the worst there are: they keep to
no shape by themselves. By default they are lists of texts of at most 400 characters. Options are those of
``pio.load``, by default ``quantize=int4``, or fields of a request (``temperature=0.7``, ``top_k=20``). Rounds
alternate; the first two are not counted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from pio.benchmarks.random_model import random_model, read_config
from pio.engine.sampling_params import SamplingParams
from pio.plugin import TextModelPlugin

TEXTS = {"type": "array", "items": {"type": "string", "minLength": 3, "maxLength": 400}, "minItems": 200}
SCHEMA = {"type": "object", "properties": {"rows": TEXTS}, "required": ["rows"], "additionalProperties": False}


def seconds_a_token(model: TextModelPlugin, seeds: range, fields: dict[str, Any]) -> float:
    """Return the seconds from the first of some requests to the last answer, for each token of them."""
    began = perf_counter()
    handles = [model.submit([1000 + seed, 2000, 3000], seed=seed, **fields) for seed in seeds]
    tokens = sum(len(handle.result().token_ids) for handle in handles)
    return (perf_counter() - began) / tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--schema", type=Path)
    parser.add_argument("--together", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE")
    given = parser.parse_intermixed_args()  # options may stand behind others
    schema = SCHEMA if given.schema is None else json.loads(given.schema.read_text("utf-8"))
    named = dict(option.split("=", 1) for option in given.options)
    fields: dict[str, Any] = {name: named.pop(name) for name in list(named) if name in SamplingParams.model_fields}
    fields = {"temperature": 1.0, "max_new_tokens": given.tokens, **{k: json.loads(v) for k, v in fields.items()}}
    options: dict[str, Any] = {"quantize": "int4", "speculation": "off", "progress": False, **named}
    options["max_batch_sequences"] = given.together
    beside = [path for path in given.folder.glob("*token*") if path.is_file()]
    with random_model(dict(read_config(given.folder)), beside=beside, **options) as model:
        ratios: list[float] = []
        for i in range(given.rounds + 2):
            found: dict[bool, float] = {}
            seeds = range(i * given.together, (i + 1) * given.together)  # other texts each time
            for shaped in (True, False) if i % 2 else (False, True):
                shape = {"response_format": schema} if shaped else {}
                found[shaped] = seconds_a_token(model, seeds, {**fields, **shape})
            ratios.append(found[True] / found[False])
            print(f"shape {found[True] * 1e3:.3f} ms a token, none {found[False] * 1e3:.3f}: {ratios[-1]:.3f}")
        print(f"median of {given.rounds} rounds: {median(ratios[2:]):.4f}")


if __name__ == "__main__":
    main()
