"""Which segments of a folder go, where there is no room for another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from pio.store.folder import Listed
from pio.store.segment import Segment

SETTLED: Final = 60.0  # seconds after which nobody is about to write what makes a way useful


class Eviction:
    """Chooses among the segments of a folder, one after the other.

    First go those that nobody can reach any more, for what they continue is gone. Then, where items are of use only
    as the way to others that stand beside one (states, behind blocks), ends of ways on which none stands any more; not
    yet those that are just being written, states last. Then what was used least recently, of a chain its end before
    its beginning. Of segments of other stores nothing but their age is known.

    Attributes:
        left: Those that are there, the one that was used least recently first.
        nbytes: Bytes of them.
    """

    def __init__(
        self,
        listed: Sequence[Listed],
        segments: Mapping[str, Segment],
        adding: Segment | None = None,
        *,
        ways: bool = False,
        now: float = 0.0,
    ) -> None:
        """Look at a folder.

        Args:
            listed: As it lists its segments.
            segments: What is known of those, by name.
            adding: One that is to be added; what it continues stays.
            ways: Whether items are of use only as the way to others that stand beside one.
            now: Seconds since the epoch.
        """
        self.left = list(listed)
        self.nbytes = sum(entry.nbytes for entry in listed)
        self._known = {e.name: found for e in listed if (found := segments.get(e.name)) is not None}
        self._held = Counter(key for found in self._known.values() for key in found.keys)
        self._continued = Counter(parent for found in self._known.values() for parent in found.parents)
        if adding is not None:
            self._held.update(adding.keys)
            self._continued.update(adding.parents)
        self._ways, self._settled = ways, (now - SETTLED) * 1e9
        self._losing = True

    def next(self) -> Listed | None:
        """Return the one that goes next; None where all that is left is what the new one continues."""
        if self._losing:
            lost = next((entry for entry in self.left if self._is_lost(entry)), None)
            if lost is not None:
                return lost
            self._losing = False  # an end that goes is the way to nothing
        if self._ways:
            vain = next((entry for entry in self.left if self._is_vain(entry)), None)
            if vain is not None:
                return vain
        return next((entry for entry in self.left if self._is_end(entry)), None)

    def remove(self, entry: Listed, *, stays: bool = False) -> None:
        """Take note that a segment is gone, or cannot be removed and counts as before."""
        self.left.remove(entry)
        known = self._known.pop(entry.name, None)
        if stays:
            return
        self.nbytes -= entry.nbytes
        if known is not None:
            self._held.subtract(known.keys)
            self._continued.subtract(known.parents)

    def _is_lost(self, entry: Listed) -> bool:
        """Whether nothing in it can be asked for: no first item, and none that continues what is there."""
        found = self._known.get(entry.name)
        return found is not None and not found.begins and not any(self._held[key] > 0 for key in found.parents)

    def _is_vain(self, entry: Listed) -> bool:
        """Whether it is the end of a way that leads to nothing."""
        found = self._known.get(entry.name)
        return found is not None and not found.beside and entry.used < self._settled and self._is_end(entry)

    def _is_end(self, entry: Listed) -> bool:
        """Whether no other segment goes on where this one ends, as far as is known."""
        found = self._known.get(entry.name)
        return found is None or not any(self._continued[key] > 0 for key in found.keys)
