"""How much sooner the first token of a long prompt comes where a prefix cache on disk has it, after a restart.

python -m benchmarks.stored_prompt CONFIG [--tokens 8192] [--layers N] [--folder FOLDER] [OPTION=VALUE ...]

CONFIG is a config.json or a folder with one; weights are random. With --layers only the first ones are there, at their
true widths: what is computed and what is read both grow with them. Options are those of ``pio.load``, by default
``quantize=int4``. The folder should lie on the disk that is asked about; after a minute or two without memory to spare,
or a reboot, files are read from the disk itself, else from the system's memory.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from pio.benchmarks.random_model import cut, random_model, read_config


def first_token(raw: Mapping[str, Any], prompt: list[int], options: Mapping[str, Any]) -> tuple[float, int]:
    """Return the seconds from a request to its first token in a model that was just loaded, and the tokens it found."""
    with random_model(dict(raw), **options) as model:
        model.generate([1, 2, 3], max_new_tokens=1)  # what only the first request waits for: threads, pages of weights
        began = perf_counter()
        found = model.generate(prompt, max_new_tokens=1, temperature=0)
        return perf_counter() - began, found.usage.cached_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE")
    given = parser.parse_intermixed_args()  # options may stand behind others
    raw = read_config(given.config)
    if given.layers is not None:
        raw = cut(raw, given.layers)
    vocabulary = raw.get("text_config", raw)["vocab_size"]
    prompt = random.Random(0).choices(range(vocabulary), k=given.tokens)
    named = dict(option.split("=", 1) for option in given.options)
    with tempfile.TemporaryDirectory(prefix="pio-", dir=given.folder) as folder:
        options = {
            "quantize": "int4",
            "context_length": given.tokens + 64,
            "prefix_cache_path": folder,
            "progress": False,
            **named,
        }
        computed, found = first_token(raw, prompt, options)
        nbytes = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
        print(f"computed: {computed:8.3f} s for {given.tokens} tokens, {found} found; {nbytes / 1e6:.0f} MB kept")
        for _ in range(3):
            seconds, found = first_token(raw, prompt, options)
            print(f"from disk:{seconds:8.3f} s, {found} tokens found: {computed / seconds:.1f} times sooner")


if __name__ == "__main__":
    main()
