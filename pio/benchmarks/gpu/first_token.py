"""How soon a new process has the first token of an answer: ``python -m pio.benchmarks.gpu.first_token demo cuda``.

It writes one JSON value: seconds until pio is imported, until the model is loaded, and until the token is there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Load a model on a device, and have one token."""
    began = time.perf_counter()
    import pio

    imported = time.perf_counter()
    with pio.load(arguments[0], device=arguments[1]) as model:
        loaded = time.perf_counter()
        model.generate([1, 2, 3], max_new_tokens=1, ignore_eos=True)
        done = time.perf_counter()
        second = time.perf_counter()
        model.generate([4, 5, 6], max_new_tokens=1, ignore_eos=True)
        warm = time.perf_counter() - second
    found = {"import": imported - began, "load": loaded - imported, "token": done - loaded, "second": warm}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
