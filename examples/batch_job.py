"""Answer a file of prompts, one JSON object a line; killed at any moment, it goes on where it was.

python examples/batch_job.py PROMPTS.jsonl ANSWERS.jsonl [MODEL]

A line of PROMPTS has an ``id`` and a ``prompt``, text or messages, and may have fields of sampling; a line of ANSWERS
has the ``id`` and the ``text``. An answer is on disk before it counts: what a kill cuts short is answered again.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pio

TOGETHER = 32  # requests in flight: enough to fill the model's batches, few enough to read prompts as they are needed


def answered(path: Path) -> set[Any]:
    """Return the ids in a file of answers; a last line that was cut short is taken off."""
    if not path.exists():
        return set()
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    if end < len(whole):
        os.truncate(path, end)
    return {json.loads(line)["id"] for line in whole[:end].splitlines()}


def requests(path: Path, done: set[Any]) -> Iterator[dict[str, Any]]:
    """Yield the requests that have no answer yet."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            if request["id"] not in done:
                yield request


def main(prompts: Path, answers: Path, model_path: str) -> None:
    """Answer what has no answer yet, in the order of the file."""
    done = answered(answers)
    with pio.load(model_path) as model, answers.open("ab") as out:

        def write(name: Any, handle: pio.Handle) -> None:
            line = json.dumps({"id": name, "text": handle.result().text}) + "\n"
            out.write(line.encode())
            out.flush()
            os.fsync(out.fileno())

        running: deque[tuple[Any, pio.Handle]] = deque()
        for request in requests(prompts, done):
            name, prompt = request.pop("id"), request.pop("prompt")
            running.append((name, model.submit(prompt, **request)))
            if len(running) == TOGETHER:
                write(*running.popleft())
        while running:
            write(*running.popleft())
    print(f"{len(answered(answers))} answers in {answers}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "demo")
