"""A pool of threads asks one model.

python examples/thread_pool.py [MODEL]
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import pio

PROMPTS = [f"def add_{n}(a, b):" for n in range(24)]


def main(path: str) -> None:
    """Print what the model makes of all prompts."""
    with pio.load(path) as model, ThreadPoolExecutor(8) as pool:

        def answer(prompt: str) -> str:
            return model.generate_text(prompt, max_new_tokens=12, temperature=0)

        for prompt, text in zip(PROMPTS, pool.map(answer, PROMPTS), strict=True):
            print(prompt + text.split("\n")[0])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo")
