"""Pictures and positions that come with a prompt, checked before it is queued."""

from __future__ import annotations

from collections.abc import Sequence

from pio.errors import ConfigError
from pio.text.encoded_prompt import EncodedPrompt, PromptEmbeddings

REMEDY = "take prompts with pictures as they were encoded"


def check(prompt: EncodedPrompt, embeddings: Sequence[PromptEmbeddings], tokens: int, axes: int) -> None:
    """Refuse places that are not in the prompt.

    Args:
        prompt: The prompt.
        embeddings: Its own, checked.
        tokens: How many it has.
        axes: How many numbers place a token for the model.

    Raises:
        ConfigError: Positions are not for this model or prompt, or media stand outside of it or in each other.
    """
    positions = prompt.positions
    if positions is not None and [len(axis) for axis in positions.axes] != [tokens] * axes:
        raise ConfigError(
            f"prompt: positions are for {[len(axis) for axis in positions.axes]} tokens, one number for each axis, and "
            f"the prompt has {tokens}, on {axes} axes; {REMEDY}"
        )
    if not prompt.media:  # embeddings alone were checked
        return
    taken: list[tuple[int, int]] = [(e.first, e.first + e.rows.shape[0]) for e in embeddings]
    for index, placed in enumerate(prompt.media):
        if not placed.places or placed.tokens < 1 or placed.tokens % len(placed.places):
            raise ConfigError(
                f"prompt: media[{index}] has {placed.tokens} tokens in {len(placed.places)} stretches, expected as "
                f"many in each; {REMEDY}"
            )
        each = placed.tokens // len(placed.places)
        taken += [(first, first + each) for first in placed.places]
    end = 0
    for first, last in sorted(taken):
        if first < end or last > tokens:
            raise ConfigError(
                f"prompt: tokens {first} to {last - 1} show something, which are not all in the prompt of {tokens}, or "
                f"show something else already; {REMEDY}"
            )
        end = last
