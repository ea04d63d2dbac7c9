"""What the blocks of a sequence are known by: a digest of all that decides what the model keeps in them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from hashlib import sha256
from struct import pack
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pio.cache.protocol import Cache
    from pio.text.encoded_prompt import PlacedMedium, PromptEmbeddings, PromptPositions

# What each digest begins with, so that none is taken for one of another kind or version.
ROOT: Final = b"pio prefix 1 root\0"
SALTED: Final = b"pio prefix 1 salt\0"
BLOCK: Final = b"pio prefix 1 block\0"


def root_key(cache: Cache, identity: bytes = b"") -> bytes:
    """Return what all keys of a cache begin from.

    Args:
        cache: How it stores positions is part of it.
        identity: What tells its model apart; nothing, where keys never leave the cache of one loaded model.
    """
    stored = cache.format
    described = f"{cache.block_size} {stored.dtype.name} {stored.stored.name} {stored.shapes}\0"
    return sha256(ROOT + described.encode() + identity).digest()


class _Shown(NamedTuple):
    """Tokens ``first`` to ``last`` stand for rows of a medium's embeddings, from ``row`` on."""

    first: int
    last: int
    row: int
    key: bytes


class BlockKeys:
    """The chain of a sequence's keys: each is a digest of the one before and of a block's tokens.

    Keys are computed when they are first asked for. Where tokens stand for pictures, which these are is part of the
    key, and so are positions that are not a token's number. Embeddings that a caller gave himself have no name: the
    block with the first of them, and all behind it, have no key.

    Attributes:
        known: How many of the sequence's first blocks are among the known ones.
    """

    __slots__ = ("_chain", "_positions", "_salt", "_shown", "_unnamed", "known")

    def __init__(
        self,
        salt: str | None = None,
        media: Iterable[PlacedMedium] = (),
        embeddings: Iterable[PromptEmbeddings] = (),
        positions: PromptPositions | None = None,
    ) -> None:
        """Begin a chain.

        Args:
            salt: Sequences with another one have other keys.
            media: Of the prompt.
            embeddings: That came with the prompt; not those of its media.
            positions: Of its tokens, where they are not their numbers.
        """
        self._salt = salt
        self._shown = tuple(_stretches(media))
        self._unnamed = min((given.first for given in embeddings), default=None)
        self._positions = positions
        self._chain: list[bytes] = []
        self.known = 0

    def named(self, tokens: int, size: int) -> int:
        """Return how many of the blocks that so many tokens fill can have a key."""
        return (tokens if self._unnamed is None else min(tokens, self._unnamed)) // size

    def key(self, index: int, tokens: array[int], size: int, root: bytes) -> bytes:
        """Return a block's key.

        Args:
            index: Which of the sequence's blocks, below what ``named`` says.
            tokens: All of the sequence, in at least that many full blocks.
            size: Tokens a block.
            root: What the keys of the cache begin from.
        """
        chain = self._chain
        while len(chain) <= index:
            before = chain[-1] if chain else self._salted(root)
            first = len(chain) * size
            held = tokens[first : first + size].tobytes()
            chain.append(sha256(BLOCK + before + held + self._beside(first, size)).digest())
        return chain[index]

    def first(self, blocks: int) -> tuple[bytes, ...]:
        """Return the keys of so many blocks, which have been asked for before."""
        return tuple(self._chain[:blocks])

    def follow(self, other: BlockKeys) -> None:
        """Take over the keys of a sequence that has had the same tokens so far, and the same blocks."""
        self._chain, self.known = other._chain.copy(), other.known

    def _salted(self, root: bytes) -> bytes:
        salt = b"" if self._salt is None else b"\1" + self._salt.encode("utf-8", "surrogatepass")
        return sha256(SALTED + root + salt).digest()

    def _beside(self, first: int, size: int) -> bytes:
        """What else than tokens decides what a block holds: nothing, in text."""
        found, last = b"", first + size
        for shown in self._shown:
            begin, end = max(first, shown.first), min(last, shown.last)
            if begin < end:
                row = shown.row + begin - shown.first
                found += b"m" + pack("<4q", begin - first, end - begin, row, len(shown.key)) + shown.key
        if self._positions is not None:
            numbers = array("i", range(first, last))
            axes = self._positions.of(first, size)
            if any(axis != numbers for axis in axes):
                found += b"p" + b"".join(axis.tobytes() for axis in axes)
        return found


def _stretches(media: Iterable[PlacedMedium]) -> Iterable[_Shown]:
    for placed in media:
        each = placed.tokens // len(placed.places)
        for index, first in enumerate(placed.places):
            yield _Shown(first, first + each, index * each, placed.key)
