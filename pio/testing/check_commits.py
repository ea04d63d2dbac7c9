"""Do states wait for tokens that may not stand? Drafts, right and wrong, are committed and compared with decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from pio.cache.protocol import Cache, TentativeCache, tentative_tokens
from pio.layers.decoder import Decoder
from pio.plugin import TextModelPlugin
from pio.tensor import Tensor
from pio.testing.compare import bits

PROMPT: Final = 5  # tokens of each of the two sequences, before drafts
DRAFTS: Final = 3
CONTEXT: Final = PROMPT + 2 * DRAFTS

# Which sequence, how many tokens came before, its next tokens, and whether they are tentative
Slice = tuple[int, int, Sequence[int], bool]


def check_commits(model: TextModelPlugin) -> list[str]:
    """Have a loaded model draft, commit and go on, and compare its logits with those of decoding, to the bit.

    Nothing is asked of a model without states, or whose cache allows no tentative tokens. No request may run meanwhile.

    Returns:
        What is wrong, in words that name what to do; an empty list for a model that complies.
    """
    decoder = model.loaded.model
    tokens = min(decoder.max_batch_tokens, decoder.max_positions - CONTEXT)
    cache = decoder.new_cache(2 * CONTEXT)
    each = -(-CONTEXT // cache.block_size)
    if cache.num_blocks < 2 * each:  # rounded up to one block for both
        cache.free()
        cache = decoder.new_cache(2 * each * cache.block_size)
    try:
        offered = cache.state_bytes and tentative_tokens(cache) >= DRAFTS
        if not offered or tokens < PROMPT or decoder.max_batch_outputs < DRAFTS:
            return []
        return _Check(decoder, cache, each).findings()
    finally:
        decoder.forget_steps()
        cache.free()


class _Check:
    """Steps of a model on a cache of its own, of one sequence or two beside each other."""

    def __init__(self, decoder: Decoder, cache: Cache, each: int) -> None:
        self._decoder, self._cache, self._each = decoder, cache, each
        two = decoder.max_batch_sequences > 1 and decoder.max_batch_tokens > DRAFTS
        self._two = two and decoder.max_batch_outputs > DRAFTS
        self._batch = decoder.new_batch(max(PROMPT, DRAFTS + 1), 2, each, DRAFTS + 1)

    def findings(self) -> list[str]:
        """Return what is wrong; drafts stand up to each of them, and the last of two sequences is an ordinary one."""
        alone = [self._decoded(sequence) for sequence in range(1 + self._two)]
        for stand in range(DRAFTS + 1):
            for sequence in range(1 + self._two):
                self._step((sequence, 0, self._tokens(sequence)[:PROMPT], False))
            drafts = [*self._tokens(0)[PROMPT : PROMPT + stand], *self._wrong()[stand:]]
            other = [(1, PROMPT, self._tokens(1)[PROMPT : PROMPT + 1], False)] if self._two else []
            rows = self._step((0, PROMPT, drafts, True), *other)
            cast(TentativeCache, self._cache).commit(0, stand)
            found, wanted = rows[:stand] + rows[DRAFTS:], alone[0][:stand] + [own[0] for own in alone[1:]]
            if found != wanted:
                return [_differs(f"in a step with {DRAFTS} tentative tokens logits differ")]
            for t in range(stand, DRAFTS + 1):
                (row,) = self._step((0, PROMPT + t, [self._tokens(0)[PROMPT + t]], False))
                if row != alone[0][t]:
                    return [
                        _differs(f"behind {DRAFTS} tentative tokens, of which {stand} were committed, logits differ")
                    ]
        return []

    def _decoded(self, sequence: int) -> list[bytes]:
        """The logits of a sequence's tokens behind its prompt, one token after the other."""
        tokens = self._tokens(sequence)
        self._step((sequence, 0, tokens[:PROMPT], False))
        steps = range(PROMPT, PROMPT + DRAFTS + 1)
        return [row for past in steps for row in self._step((sequence, past, [tokens[past]], False))]

    def _tokens(self, sequence: int) -> list[int]:
        return [(7 + 31 * sequence + 11 * i) % self._decoder.vocab_size for i in range(CONTEXT)]

    def _wrong(self) -> list[int]:
        return [(3 + 17 * i) % self._decoder.vocab_size for i in range(DRAFTS)]

    def _step(self, *slices: Slice) -> list[bytes]:
        """Run a step; return the logits of all tokens but those of a prompt."""
        batch = self._batch
        batch.begin()
        for sequence, past, tokens, tentative in slices:
            blocks, outputs = range(sequence * self._each, (sequence + 1) * self._each), len(tokens) if past else 0
            batch.add(tokens, past, blocks, outputs, sequence, tentative=tentative)
        logits: Tensor = self._decoder.forward(batch, self._cache)
        return [bits(row) for row in logits]


def _differs(what: str) -> str:
    return (
        f"{what} from those of decoding token by token: some recurrent layer moves its states in a tentative step, or "
        "keeps too little for commit. Give ops.causal_conv and ops.gated_delta the window that the cache "
        "returns for the layer, or make the RecurrentStates without tentative_tokens"
    )
