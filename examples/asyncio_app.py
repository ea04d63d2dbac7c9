"""Many streams in one event loop: no thread waits for any of them.

python examples/asyncio_app.py [MODEL]
"""

import asyncio
import sys
from contextlib import aclosing

import pio


async def visitor(model: pio.TextModelPlugin, name: int) -> str:
    """Read an answer as it comes; one that takes longer than a minute ends with what there is."""
    pieces = [piece async for piece in model.stream(f"# visitor {name}\n", max_new_tokens=16, seed=name, deadline=60.0)]
    return "".join(pieces)


async def who_leaves(model: pio.TextModelPlugin) -> str:
    """Read a piece and go: leaving the block ends the request, and others have the model to themselves."""
    async with aclosing(model.stream("import ", max_new_tokens=1500, ignore_eos=True)) as pieces:
        return await anext(pieces)


async def main(path: str) -> None:
    """Serve all of them at once."""
    async with await asyncio.to_thread(pio.load, path) as model:
        first, *answers = await asyncio.gather(who_leaves(model), *(visitor(model, name) for name in range(12)))
        print(f"left after {first!r}")
        for name, answer in enumerate(answers):
            print(f"{name}: {answer!r}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "demo"))
