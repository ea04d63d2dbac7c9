"""The records of a step's choices in the memory of a GPU: sent there together, and read back when tokens are chosen."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from pio.device import Device
from pio.kernels import _sampling_record as fields
from pio.memory.budget import MemoryBudget
from pio.memory.storage import Storage

_ALIGNED: Final = 16
_LEAST: Final = 1 << 16  # bytes that are made at first


class Sendable(Protocol):
    """A choice, as ``ops.sampling.Choice``.

    Attributes:
        record: What the kernel reads and writes.
    """

    record: array[int]

    def named(self) -> Iterable[tuple[int, int, int]]:
        """Return where the record names memory: the field, and address and bytes of what it names."""
        ...

    def lists(self) -> Sequence[array[int]]:
        """Return the lists of tokens, int32, that the record names by way of a table."""
        ...


class Carrier(Protocol):
    """What is copied to the GPU for a step, as ``ops.slices.Slices``, and takes bytes along."""

    def carry(self, nbytes: int) -> tuple[int, int] | None:
        """Return where bytes are to be written, and where they will lie on the GPU; None where there is no room."""
        ...


class SentChoices:
    """One stretch of a GPU's memory: where each record lies, the records, and behind them all that they name.

    A record names memory of this process: counts of tokens, biases, a mask, and lists of tokens. The copy that is sent
    names what is sent with it. It goes with the batch of the step where there is room for it, and is a copy of its own
    where there is none, or where nobody knew of a choice before the step.
    """

    def __init__(self, device: Device, budget: MemoryBudget | None = None) -> None:
        """Make the memory; it grows where a step needs more.

        Raises:
            OutOfMemoryError: The budget or the GPU refuses.
        """
        self._device, self._budget = device, budget
        self._there = self._allocate(_LEAST)
        self._base, self._records = 0, range(0)  # where the last ones lie, and where in that the records
        self._carried: list[array[int]] = []  # the records that went with a batch, until they are read back

    @property
    def nbytes(self) -> int:
        """Bytes that are taken now."""
        return self._there.nbytes

    def carry(self, choices: Sequence[Sendable], carrier: Carrier) -> None:
        """Have some choices go to the GPU with what is copied there for a step; they stay as they are until ``send``.

        Where there is no room that changes nothing.
        """
        self._carried = []
        if not choices:
            return
        packed, moved = _packed(choices)
        place = carrier.carry(len(packed))
        if place is not None:
            here, self._base = place
            _move(packed, moved, self._base)
            ctypes.memmove(here, _address(packed), len(packed))
            self._note(choices)
            self._carried = [choice.record for choice in choices]

    def send(self, choices: Sequence[Sendable]) -> int:
        """Copy the records of some choices to the GPU, if they are not there, and return where their addresses lie.

        Raises:
            OutOfMemoryError: They take more memory than there is.
        """
        if self._carried:
            there = len(choices) == len(self._carried)
            there = there and all(a.record is b for a, b in zip(choices, self._carried, strict=True))
            self._carried = []
            if there:
                return self._base
        packed, moved = _packed(choices)
        if len(packed) > self._there.nbytes:
            self._there = self._allocate(2 * len(packed))
        self._base = self._there.address
        _move(packed, moved, self._base)
        self._note(choices)
        stream = self._device.stream
        assert stream is not None
        stream.copy_in(self._base, _address(packed), len(packed))
        return self._base

    def _note(self, choices: Sequence[Sendable]) -> None:
        """Note where the records lie of what was packed."""
        first = _whole(8 * len(choices))
        self._records = range(first, first + sum(8 * len(choice.record) for choice in choices))

    def receive(self, choices: Sequence[Sendable]) -> None:
        """Read back what the kernel wrote into the records that were sent last, of the same choices."""
        stream = self._device.stream
        assert stream is not None
        back = array("q", bytes(len(self._records)))
        stream.copy_out(back.buffer_info()[0], self._base + self._records.start, len(self._records))
        at, chosen = 0, fields.TOKEN // 8
        for choice in choices:
            size = len(choice.record)
            choice.record[chosen:] = back[at + chosen : at + size]
            at += size

    def _allocate(self, nbytes: int) -> Storage:
        return Storage.allocate(nbytes, budget=self._budget, what="what tokens are chosen by", device=self._device)


def _packed(choices: Sequence[Sendable]) -> tuple[bytearray, list[int]]:
    """What is sent, and at which of its bytes stand addresses in it, which are counted from its beginning."""
    at = _whole(8 * len(choices))
    packed, moved = bytearray(at), list[int]()
    for i, choice in enumerate(choices):
        _name(packed, moved, 8 * i, len(packed))
        packed += choice.record.tobytes()
    packed += bytes(_whole(len(packed)) - len(packed))
    for choice in choices:
        for field, address, nbytes in choice.named():
            _name(packed, moved, at + field, len(packed))
            packed += ctypes.string_at(address, nbytes).ljust(_whole(nbytes), b"\0")
        lists = choice.lists()
        if lists:
            table = len(packed)
            _name(packed, moved, at + fields.LISTS, table)
            packed += bytes(16 * len(lists))
            for i, ids in enumerate(lists):
                _name(packed, moved, table + 16 * i, len(packed))
                packed[table + 16 * i + 8 : table + 16 * i + 16] = len(ids).to_bytes(8, "little")
                packed += ids.tobytes().ljust(_whole(4 * len(ids)), b"\0")
        at += 8 * len(choice.record)
    return packed, moved


def _move(packed: bytearray, moved: Sequence[int], base: int) -> None:
    """Have it name addresses where it will lie."""
    words = memoryview(packed).cast("q")
    for at in moved:
        words[at // 8] += base
    words.release()


def _address(packed: bytearray) -> int:
    """Where it lies here."""
    return ctypes.addressof((ctypes.c_char * len(packed)).from_buffer(packed))


def _name(packed: bytearray, moved: list[int], at: int, offset: int) -> None:
    """Write where something lies, and note that it moves with the whole."""
    packed[at : at + 8] = offset.to_bytes(8, "little")
    moved.append(at)


def _whole(nbytes: int) -> int:
    return -(-nbytes // _ALIGNED) * _ALIGNED
