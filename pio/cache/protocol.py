"""What every cache offers: to the engine blocks of positions and slots of states, to layers the tensors they keep."""

from __future__ import annotations

from typing import Any, Protocol

from pio.cache.format import CacheFormat
from pio.cache.snapshot import Snapshot
from pio.errors import ConfigError


class Cache(Protocol):
    """What a model's layers keep of the tokens that they have seen: pages, latents, states, or several of these.

    Positions lie in blocks, which any sequence may own, also several at once. What does not grow with a sequence, such
    as the states of recurrent layers, lies in a slot, which one sequence has while it runs. A cache without states
    takes any slot, and has nothing to do for it.

    Attributes:
        format: How layers that attend store positions.
        block_size: Positions a block.
        num_blocks: Blocks in all.
        nbytes: Bytes in all.
        block_bytes: Bytes of a block in all layers.
        state_bytes: Bytes of the states of a sequence in all layers that do not attend.
    """

    format: CacheFormat
    block_size: int
    num_blocks: int
    nbytes: int
    block_bytes: int
    state_bytes: int

    def layer(self, index: int, /) -> Any:  # the mixer of that layer knows of which kind
        """Return what a layer keeps: keys and values, latents, or states."""
        ...

    def copy_block(self, source: int, target: int) -> None:
        """Copy a block in all layers.

        Raises:
            CapacityError: There is no such block.
        """
        ...

    def copy_states(self, source: int, target: int) -> None:
        """Copy the states of a slot to another one.

        Raises:
            CapacityError: There is no such slot.
        """
        ...

    def snapshot(self, slot: int, length: int) -> Snapshot:
        """Return a copy of a slot's states, which are behind ``length`` tokens of its sequence.

        Raises:
            CapacityError: There is no such slot.
        """
        ...

    def restore(self, slot: int, snapshot: Snapshot) -> None:
        """Put states back, into the slot that they are of or any other.

        Raises:
            CapacityError: There is no such slot.
            ConfigError: The snapshot is of another model.
        """
        ...

    def truncate(self, slot: int, length: int) -> None:
        """Take a sequence back to its first ``length`` tokens.

        Blocks need nothing: what they hold of later positions is overwritten before it is read. Nor does a length of
        zero, for a first token finds states of zeros.

        Raises:
            CapacityError: There are states, which cannot go back; only a snapshot can be restored.
        """
        ...

    def free(self) -> None:
        """Give the memory back: every storage by its ``Storage.free``.

        By that alone recorded steps notice, which hold addresses in it and ask nothing of the cache before they run
        again. Freeing twice does no harm.
        """
        ...


_OFFERED = [name for name in (*Cache.__annotations__, *vars(Cache)) if not name.startswith("_")]


def check_offered(cache: object) -> None:
    """Look whether a cache has all that ``Cache`` lists.

    Raises:
        ConfigError: It lacks something, as one that was written for an older engine does; the message names it.
    """
    lacking = [name for name in _OFFERED if not hasattr(cache, name)]
    if lacking:
        raise ConfigError(
            f"{type(cache).__name__} lacks {', '.join(lacking)}, which pio.cache.protocol.Cache lists; derive it "
            "from pio.cache.paged.PagedCache, or add them: requests with n > 1 share the blocks of their prompt"
        )
