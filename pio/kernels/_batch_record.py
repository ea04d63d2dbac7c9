"""The record of a batch, as kernels read it and ``ops.slices`` fills it; imported without a compiler.

Its fields are int64: how many sequences there are, how many blocks a row of the table has, and where each table begins,
in bytes from the record itself. So it may be copied with what is behind it, and a recorded step, which keeps its
address, reads the counts anew each time it runs.
"""

from __future__ import annotations

from typing import Final

SEQUENCES, BLOCKS, TABLES, STARTS, PAST, SLOTS, TENTATIVE, SOURCES = (8 * i for i in range(8))
FIELDS: Final = 8
