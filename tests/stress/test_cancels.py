"""Requests that are cancelled at any moment, in their prompts too, leave the engine to others at once."""

from __future__ import annotations

import random
import time

import pytest

import pio

pytestmark = pytest.mark.stress

FREE_WITHIN = 0.25  # seconds from a cancel to the first token of the next request
GIVE_UP = 60.0  # seconds after which somebody hangs


def test_cancels_at_random_moments(sizes):
    rng = random.Random(20)
    times = []
    with pio.load("demo", max_batch_sequences=1, prefill_chunk=64) as model:
        expected = model.generate([5, 6, 7], max_new_tokens=1, temperature=0).token_ids
        for _ in range(sizes.cancels):
            prompt = [rng.randrange(1, 4000) for _ in range(rng.choice((3, 900, 1900)))]
            handle = model.submit(prompt, max_new_tokens=2048 - len(prompt), ignore_eos=True)
            behind = model.submit([9] * 40, max_new_tokens=500, ignore_eos=True)
            dropped = [behind]
            try:
                handle.result(timeout=rng.random() ** 3 * 0.3)  # a fast machine is done with a short answer by then
            except TimeoutError:
                dropped.append(handle)
                handle.cancel()
            began = time.perf_counter()
            behind.cancel()
            assert model.submit([5, 6, 7], max_new_tokens=1, temperature=0).result(GIVE_UP).token_ids == expected
            times.append(time.perf_counter() - began)
            for cancelled in dropped:
                assert cancelled.done
                with pytest.raises(pio.CancelledError):
                    cancelled.result(GIVE_UP)
    if sizes.long:
        assert max(times) < FREE_WITHIN, f"the slowest: {sorted(times)[-5:]}"
