"""What blocks are known by: the same for the same contents, and never for others."""

from __future__ import annotations

import hashlib
from array import array
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from toy_model import PagedToyCache

from pio.engine.block_keys import BlockKeys, root_key
from pio.tensor import Tensor
from pio.text.encoded_prompt import PlacedMedium, PromptEmbeddings, PromptPositions

SIZE = 4
ROOT = root_key(PagedToyCache(1, SIZE))
TOKENS = array("i", range(30))


def chain(keys: BlockKeys, tokens: array[int] = TOKENS, root: bytes = ROOT) -> list[bytes]:
    return [keys.key(i, tokens, SIZE, root) for i in range(keys.named(len(tokens), SIZE))]


def picture(key: bytes, *places: int, tokens: int = 6) -> PlacedMedium:
    return PlacedMedium(None, key, places, tokens)


def test_a_key_is_the_digest_that_is_documented() -> None:
    salted = hashlib.sha256(b"pio prefix 1 salt\0" + ROOT + b"\1you").digest()
    first = hashlib.sha256(b"pio prefix 1 block\0" + salted + TOKENS[:4].tobytes()).digest()
    second = hashlib.sha256(b"pio prefix 1 block\0" + first + TOKENS[4:8].tobytes()).digest()
    assert chain(BlockKeys("you"))[:2] == [first, second]


@given(st.lists(st.integers(0, 2), max_size=20), st.lists(st.integers(0, 2), max_size=20))
def test_keys_are_the_same_as_far_as_tokens_are(one: list[int], other: list[int]) -> None:
    found = [chain(BlockKeys(), array("i", tokens)) for tokens in (one, other)]
    for i, pair in enumerate(zip(*found, strict=False)):
        end = (i + 1) * SIZE
        assert (pair[0] == pair[1]) == (one[:end] == other[:end])


def test_no_salt_root_or_medium_is_taken_for_another() -> None:
    shown: list[dict[str, Any]] = [
        {},
        {"salt": "a"},
        {"salt": "b"},
        {"salt": "\udcff"},  # what no file may hold is a name all the same
        {"media": [picture(b"a", 5)]},
        {"media": [picture(b"b", 5)]},
        {"media": [picture(b"a", 6)]},
        {"media": [picture(b"a", 5, tokens=7)]},
        {"media": [picture(b"a", 5, 9, tokens=6)]},  # in two stretches
        {"media": [picture(b"a", 5, tokens=3), picture(b"b", 8, tokens=3)]},
    ]
    found = [chain(BlockKeys(**given)) for given in shown]
    found.append(chain(BlockKeys(), root=root_key(PagedToyCache(1, SIZE), b"another model")))
    assert len({keys[-1] for keys in found}) == len(found)
    assert len({keys[0] for keys in found}) == 5, "before a picture nothing is different"
    assert root_key(PagedToyCache(1, SIZE)) != root_key(PagedToyCache(1, SIZE + 1))


def test_a_picture_of_the_same_key_is_the_same() -> None:
    assert chain(BlockKeys(media=[picture(b"a", 5)])) == chain(BlockKeys(media=[picture(b"a", 5)]))


def test_positions_count_where_they_are_not_numbers_of_tokens() -> None:
    straight, turned = array("i", range(30)), array("i", [*range(6), *[6] * 24])
    plain = chain(BlockKeys())
    assert chain(BlockKeys(positions=PromptPositions((straight, straight), 0))) == plain
    for axes in ((straight, turned), (turned, straight), (turned, turned)):
        found = chain(BlockKeys(positions=PromptPositions(axes, 0)))
        assert found[0] == plain[0] and found[1] != plain[1]
    behind = [chain(BlockKeys(positions=PromptPositions((straight[:8],), shift))) for shift in (0, -3)]
    assert behind[0] == plain and behind[1][:2] == plain[:2] and behind[1][2] != plain[2]


def test_embeddings_of_a_caller_have_no_name() -> None:
    given = [PromptEmbeddings(17, Tensor.zeros((2, 3))), PromptEmbeddings(9, Tensor.zeros((2, 3)))]
    assert chain(BlockKeys(embeddings=given)) == chain(BlockKeys())[:2]
