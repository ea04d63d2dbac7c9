"""Machine code in this process: object files that were laid into memory, and the addresses of what they define."""

from __future__ import annotations

import threading

from pio.forks import free_in_children
from pio.kernels import _elf
from pio.shelter import import_whole
from pio.system import HERE

_lock = threading.RLock()
_places: dict[str, int] = {}

free_in_children(_lock)


def load(symbol: str, code: bytes) -> int:
    """Return the address of a symbol that an object file defines; one that is loaded is not loaded again.

    Raises:
        MemoryError: There is too little memory.
        PermissionError: The system lets no memory be run that was written to.
    """
    found = _places.get(symbol)
    if found is None and HERE.places_objects:
        found = _placed(symbol, code)
    return import_whole("pio.kernels._mcjit").load(symbol, code) if found is None else found


def _placed(symbol: str, code: bytes) -> int | None:
    with _lock:
        if symbol not in _places:
            try:
                _places[symbol] = _elf.place(code, symbol)
            except _elf.Unknown:
                return None
        return _places[symbol]
