"""Models that are loaded, used and given back again and again leave nothing behind."""

from __future__ import annotations

import gc

import pytest

import pio
from pio.memory.allocation import allocated_bytes

pytestmark = pytest.mark.stress

GROWTH = 16 << 20  # bytes


def test_loads_and_clean_ups_leave_nothing_behind(sizes, holdings):
    def once(i):
        with pio.load("demo", context_length=256, prefill_chunk=5 + i % 3) as model:
            text = model.generate_text("def area(", max_new_tokens=4, temperature=0)
            if i % 2:
                model.update(context_length=128)
            running = model.submit("x", max_new_tokens=100, ignore_eos=True)
        assert running.done
        return text

    expected = once(0)
    once(1)
    gc.collect()  # what tests before have left in circles
    allocated, before = allocated_bytes(), holdings.now()
    assert {once(i) for i in range(sizes.loads)} == {expected}
    holdings.now().assert_flat_since(before, GROWTH)
    assert allocated_bytes() == allocated
