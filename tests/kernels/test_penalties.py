import math
import struct

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from logits_rows import rows, tensor

from pio.errors import ConfigError
from pio.ops.bans import Bans
from pio.ops.penalties import Penalties
from pio.ops.sampling import Choice, Sampler
from pio.ops.token_mask import TokenMask
from pio.tensor import Tensor
from pio.testing.reference import draw as draws
from pio.testing.reference import penalties as reference


def choose(logits: Tensor, choice: Choice, u: float = 0.0) -> int:
    choice.aim(1, u)
    Sampler(logits.shape[1]).sample(logits, [choice])
    if choice.token < 0:
        raise choice.refusal(logits)
    return choice.token


def agrees(chances: list[tuple[int, float]], u: float, token: int) -> bool:
    """Whether the token is the reference's, or u so near a border that rounding decides."""
    return any(draws.draw(chances, max(0.0, u + d)) == token for d in (0, -3e-6, 3e-6))


@given(rows(least=3), st.data())
def test_penalties_and_biases(row: list[float], data: st.DataObject) -> None:
    token = st.integers(0, len(row) - 1)
    prompt = data.draw(st.lists(token, min_size=1, max_size=9))
    answer = data.draw(st.lists(token, max_size=12))
    bias = data.draw(st.dictionaries(token, st.sampled_from([-100.0, -1.5, 3.0]), max_size=3))
    repetition = data.draw(st.sampled_from([1.0, 1.3, 0.5]))
    presence = data.draw(st.sampled_from([0.0, 1.25, -2.0]))
    frequency = data.draw(st.sampled_from([0.0, 0.75, -0.5]))
    penalties = Penalties(
        prompt, len(answer), len(row), repetition=repetition, presence=presence, frequency=frequency, bias=bias
    )
    for t in answer:
        penalties.count(t)
    expected = reference.penalize(
        row, prompt, answer, repetition=repetition, presence=presence, frequency=frequency, bias=bias
    )
    logits = tensor(row)
    before = bytes(logits.memoryview())
    chosen = choose(logits, Choice(penalties=penalties))
    assert expected[chosen] >= max(expected) - 1e-4
    assert bytes(logits.memoryview()) == before
    rounded = Tensor.from_list(expected).tolist()
    chances = draws.candidates(rounded, 1.0, 2)
    assume(len(row) == 2 or sorted(rounded)[-2] > sorted(rounded)[-3] + 1e-3)  # a clear second
    assume(chances[0][1] > chances[-1][1] + 1e-3)
    assert agrees(chances, 0.7, choose(logits, Choice(1.0, 2, penalties=penalties), 0.7))


@given(rows(least=3), st.data())
def test_banned_tokens_do_not_come(row: list[float], data: st.DataObject) -> None:
    token = st.integers(0, len(row) - 1)
    never = data.draw(st.lists(token, max_size=len(row)))
    bias = data.draw(st.dictionaries(token, st.just(100.0), max_size=2))  # a bias does not bring a token back
    expected = reference.penalize(row, [], [], bias=bias, banned=never)
    penalties = Penalties([], 1, len(row), bias=bias, bans=Bans([], len(row), always=never))
    logits = tensor(row)
    before = bytes(logits.memoryview())
    if max(expected) == -math.inf:
        with pytest.raises(ConfigError, match=r"suppress_tokens.*forbid every token that could come next"):
            choose(logits, Choice(penalties=penalties))
        return
    assert expected[choose(logits, Choice(penalties=penalties))] >= max(expected) - 1e-4  # biases round
    for arguments in ((1.0,), (1.0, 2), (1.0, 0, 0.9)):
        u = data.draw(st.floats(0, 1, exclude_max=True))
        drawn = choose(logits, Choice(*arguments, penalties=penalties), u)
        assert expected[drawn] > -math.inf
    assert bytes(logits.memoryview()) == before


@given(st.integers(1, 200), st.data())
def test_a_mask_has_a_bit_for_each_token(vocab_size: int, data: st.DataObject) -> None:
    forbidden = data.draw(st.sets(st.integers(0, vocab_size - 1)))
    mask = TokenMask(vocab_size, forbidden)
    assert {token for token in range(vocab_size) if not mask.words[token // 32] >> token % 32 & 1} == forbidden
    words = [struct.unpack("<I", struct.pack("<i", word))[0] for word in mask.words]
    bits = sum(word << 32 * i for i, word in enumerate(words))
    assert bits == (1 << 32 * len(words)) - 1 - sum(1 << token for token in forbidden)
    with pytest.raises(ConfigError, match="outside the vocabulary"):
        TokenMask(vocab_size, [vocab_size])
