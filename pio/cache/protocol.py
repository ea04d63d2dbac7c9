"""What every cache offers: to the engine blocks of positions and slots of states, to layers the tensors they keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from pio.cache.format import CacheFormat
from pio.cache.snapshot import Snapshot
from pio.errors import CapacityError, ConfigError
from pio.ops.slices import Slices, Tentative
from pio.tensor import Tensor

UNBOUNDED: Final = 1 << 31  # tentative tokens, where there are no states that they could move


class Cache(Protocol):
    """What a model's layers keep of the tokens that they have seen: pages, latents, states, or several of these.

    Positions lie in blocks, which any sequence may own, also several at once. What does not grow with a sequence, such
    as the states of recurrent layers, lies in a slot, which one sequence has while it runs. A cache without states
    takes any slot, and has nothing to do for it.

    A cache whose states can wait for tokens to stand offers what ``TentativeCache`` lists, too.

    Attributes:
        format: How layers that attend store positions.
        block_size: Positions a block.
        num_blocks: Blocks in all.
        nbytes: Bytes in all.
        block_bytes: Bytes of a block in all layers.
        state_bytes: Bytes of the states of a sequence in all layers that do not attend. Where it is zero, blocks are
            all that is kept, and the engine gives those of one sequence to others that begin with the same tokens.
        state_slots: Sequences that it has states for. The engine keeps states of earlier moments in those that no
            running sequence needs, so that blocks can be given to others as far as there are any; zero without states.
    """

    format: CacheFormat
    block_size: int
    num_blocks: int
    nbytes: int
    block_bytes: int
    state_bytes: int
    state_slots: int

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


class TentativeCache(Cache, Protocol):
    """A cache whose states can wait for tokens that may not stand; see ``tentative_tokens`` and ``begin_step`` below.

    Attributes:
        tentative_tokens: How many tokens of a step may be tentative.
    """

    tentative_tokens: int

    def begin_step(self, tentative: Sequence[Tentative], /) -> None:
        """Take note of which sequences of the next step are tentative; those of the last one can be committed no more.

        Raises:
            CapacityError: They have more tokens than there is room for.
        """
        ...

    def commit(self, slot: int, tokens: int, /) -> None:
        """Let a slot's states take in the first ``tokens`` tokens of its tentative slice in the last step.

        The states are then those that these tokens would have left, one by one, to the bit. With 0, or without a call,
        they stay as they were before that step.

        Raises:
            CapacityError: There is no such slot, or that step has fewer tentative tokens of it: they are forgotten as
                the next step begins, and where the states are copied over, put back, or go back to no token.
        """
        ...


class StoredCache(Cache, Protocol):
    """A cache whose blocks can be kept elsewhere, and put back: what ``prefix_cache_path`` needs."""

    def block_memory(self) -> list[Tensor]:
        """Return all tensors that blocks lie in, of any dtype and on any device.

        Each is contiguous, and its first axis counts blocks: as many as there are.

        Raises:
            PioError: The cache was freed.
        """
        ...


class StoredStates(StoredCache, Protocol):
    """The same of a cache with states, which are read into a slot that nobody runs in, and copied from there."""

    def state_memory(self) -> list[Tensor]:
        """Return all tensors that states lie in, of any dtype and on any device.

        Each is contiguous, and its first axis counts slots: as many as there are.

        Raises:
            PioError: The cache was freed.
        """
        ...


_OFFERED = [name for name in (*Cache.__annotations__, *vars(Cache)) if not name.startswith("_")]


def tentative_tokens(cache: Cache) -> int:
    """Return how many tokens of a step may be tentative, of all sequences together.

    Where there are no states, any number. A cache with states says how many, in an attribute of this name; one that
    says nothing, such as one whose layers know of no tentative tokens, allows none.
    """
    return getattr(cache, "tentative_tokens", 0) if cache.state_bytes else UNBOUNDED


def begin_step(cache: Cache, batch: Slices) -> None:
    """Tell a cache which sequences of the step that is about to run are tentative; ``Decoder.forward`` does.

    Raises:
        CapacityError: They have more tokens than there is room for, or the cache has states and knows no tentative
            tokens.
    """
    begin = getattr(cache, "begin_step", None)
    if begin is not None:
        begin(batch.tentative)
    elif batch.tentative and cache.state_bytes:
        raise CapacityError(
            f"a sequence of the step is tentative, but the states of this {type(cache).__name__} cannot wait for its "
            "tokens; let none be tentative where pio.cache.protocol.tentative_tokens says 0"
        )


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
