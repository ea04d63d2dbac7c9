from __future__ import annotations

from array import array
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pio.engine.sequence import Sequence

NOBODY: Any = None


@given(st.integers(1, 12), st.integers(1, 15), st.lists(st.integers(1, 5), min_size=12))
def test_every_token_that_wants_logits_has_one_row(length: int, outputs: int, chunks: list[int]) -> None:
    """However a prompt is cut: rows are those of its last tokens, one by one."""
    sequence = Sequence(NOBODY, array("i", range(length)), outputs)
    wanted = set(range(length)[-outputs:])
    for chunk in chunks:
        count = min(chunk, sequence.pending)
        sequence.plan(count)
        first = sequence.num_computed
        assert sequence.scheduled == count
        assert sequence.rows == len(wanted & set(range(first, first + count)))
        sequence.num_computed += count
    assert sequence.pending == 0


def test_an_answer_decodes_once_its_prompt_is_behind_it() -> None:
    sequence = Sequence(NOBODY, array("i", [5, 6, 7]))
    found: list[tuple[bool, int]] = []
    for count in (2, 1, 1, 1):
        decodes = sequence.decodes
        sequence.plan(count)
        found.append((decodes, sequence.rows))
        sequence.num_computed += count
        if sequence.rows:
            sequence.tokens.append(8)
    assert found == [(False, 0), (True, 1), (True, 1), (True, 1)]
    assert not Sequence(NOBODY, array("i", [5, 6]), 2).decodes
