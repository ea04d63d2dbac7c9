"""Which tokens must not come next, against a search through everything that was said."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio.errors import ConfigError
from pio.ops.bans import Bans
from pio.ops.token_mask import TokenMask
from pio.testing.reference import penalties as reference

VOCAB = 5
TOKENS = st.lists(st.integers(0, VOCAB - 1), max_size=4)


@given(
    st.lists(st.integers(0, VOCAB - 1), max_size=9),
    st.lists(st.integers(0, VOCAB - 1), max_size=12),
    TOKENS,
    TOKENS,
    TOKENS,
    st.integers(0, 5),
    st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=4), max_size=5),
    st.integers(0, 5),
)
def test_after_every_token_as_if_all_were_searched(
    prompt: list[int],
    answer: list[int],
    always: list[int],
    first: list[int],
    early: list[int],
    early_tokens: int,
    sequences: list[list[int]],
    ngram: int,
) -> None:
    wanted = {
        "always": always,
        "first": first,
        "early": early,
        "early_tokens": early_tokens,
        "sequences": sequences,
        "ngram": ngram,
    }
    bans = Bans(prompt, VOCAB, **wanted)
    for count in range(len(answer) + 1):
        assert forbidden(bans) == reference.banned(prompt, answer[:count], VOCAB, **wanted)
        if count < len(answer):
            bans.count(answer[count])


def forbidden(bans: Bans) -> set[int]:
    words = [-1] * VOCAB if bans.mask is None else bans.mask.words
    masked = {token for token in range(VOCAB) if not words[token // 32] >> token % 32 & 1}
    return masked | set(chain.from_iterable(bans.lists))


def test_no_run_of_three_comes_twice() -> None:
    bans = Bans([1, 2, 3, 1, 2], VOCAB, ngram=3)
    assert [list(ids) for ids in bans.lists] == [[3]]
    bans.count(4)
    assert bans.lists == []


def test_a_run_that_the_prompt_began() -> None:
    bans = Bans([0, 3], VOCAB, sequences=[[3, 4], [1], [3, 4, 2]])
    assert sorted(chain.from_iterable(bans.lists)) == [1, 4]
    bans.count(2)
    assert sorted(chain.from_iterable(bans.lists)) == [1]


def test_masks_come_and_go_with_the_length_of_the_answer() -> None:
    bans = Bans([1], VOCAB, always=[3], first=[0], early=[4], early_tokens=2)
    found = [forbidden(bans)]
    for token in (1, 2, 1):
        bans.count(token)
        found.append(forbidden(bans))
    assert found == [{0, 3, 4}, {3, 4}, {3}, {3}]
    assert bans.lists == []


@pytest.mark.parametrize("field", [{"always": [5]}, {"first": [-1]}, {"early": [9]}, {"sequences": [[1, 5]]}])
def test_ids_outside_the_vocabulary_are_refused(field: dict[str, list[int]]) -> None:
    with pytest.raises(ConfigError, match="outside the vocabulary; expected 0 to 4"):
        Bans([1], VOCAB, **field)


@given(TOKENS, TOKENS, st.lists(st.integers(0, VOCAB - 1), max_size=6))
def test_where_the_mask_is_somebody_elses_all_is_in_lists(
    always: list[int], first: list[int], answer: list[int]
) -> None:
    wanted = {"always": always, "first": first}
    plain, guided = Bans([0], VOCAB, **wanted), Bans([0], VOCAB, **wanted, guided=True)
    for token in (None, *answer):
        if token is not None:
            plain.count(token)
            guided.count(token)
        masked = {t for t in range(VOCAB) if plain.mask is not None and not plain.mask.words[0] >> t & 1}
        assert guided.mask is None and {*chain.from_iterable(guided.lists)} == masked


def test_who_sets_the_mask_says_when_an_answer_may_end() -> None:
    with pytest.raises(ConfigError, match="early_tokens contradicts guided"):
        Bans([0], VOCAB, early=[1], early_tokens=2, guided=True)


def test_a_token_of_a_mask_may_be_let_through_again() -> None:
    mask = TokenMask(70, [3, 64])
    mask.allow(64)
    assert [t for t in range(70) if not mask.words[t // 32] >> t % 32 & 1] == [3]
    with pytest.raises(ConfigError, match="token id 70 is outside the vocabulary"):
        mask.allow(70)


@pytest.mark.parametrize("vocab_size", [5, 32, 70, 4096])
def test_a_mask_of_one_token(vocab_size: int) -> None:
    for token in {0, vocab_size // 2, vocab_size - 1}:
        mask = TokenMask.only(token, vocab_size)
        assert [t for t in range(vocab_size) if mask.words[t // 32] >> t % 32 & 1] == [token]
    with pytest.raises(ConfigError, match=f"token id {vocab_size} is outside the vocabulary"):
        TokenMask.only(vocab_size, vocab_size)
