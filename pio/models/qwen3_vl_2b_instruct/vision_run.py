"""The memory of one run of the tower, and how its patches are cut into chunks."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pio.cache.paged import PagedCache
from pio.dtypes import int32, uint8
from pio.layers.workspace import Workspace
from pio.memory.allocation import ALIGNMENT
from pio.memory.arena import Arena
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_vl_2b_instruct.excerpt import Grid, excerpt
from pio.models.qwen3_vl_2b_instruct.vision_config import VisionConfig
from pio.ops.attention import BLOCK_SIZE
from pio.ops.slices import Slices
from pio.tensor import Tensor


class Piece(NamedTuple):
    """Patches of one medium that are embedded together.

    Attributes:
        medium: Which one.
        first: Its first patch among them.
        rows: Where they are in the run.
    """

    medium: int
    first: int
    rows: slice


class Chunk(NamedTuple):
    """Patches that go through a layer together, whatever pictures they are of.

    Attributes:
        rows: Where they are in the run.
        writing: Where their keys and values belong.
        reading: What each of them sees: all patches of its picture, or of its moment of a video.
        seen: How many that are, at most.
    """

    rows: slice
    writing: Slices
    reading: Slices
    seen: int


def run_bytes(config: VisionConfig, grids: Sequence[Grid], workspace: Workspace) -> int:
    """Return the bytes that patches of media take in a run, beside their keys and values."""
    patches = sum(t * h * w for t, h, w in grids)
    numbers = 4 * patches * (2 * config.hidden_size + config.head_dim + 2)
    pixels = _pixel_bytes(config, grids, workspace)
    return numbers + 5 * ALIGNMENT + (pixels + ALIGNMENT if pixels else 0)


def _pixel_bytes(config: VisionConfig, grids: Sequence[Grid], workspace: Workspace) -> int:
    """Bytes of pixels that are copied to a GPU at once; none where the tower reads them as they are."""
    if workspace.device.stream is None:
        return 0
    pieces = _pieces(grids, workspace.tokens)
    return max(excerpt(config, grids[p.medium], p.first, p.rows.stop - p.rows.start).nbytes for p in pieces)


def _pieces(grids: Sequence[Grid], most: int) -> Iterator[Piece]:
    """Yield pieces of so many patches at most."""
    begin = 0
    for medium, (t, height, width) in enumerate(grids):
        patches = t * height * width
        for first in range(0, patches, most):
            last = min(first + most, patches)
            yield Piece(medium, first, slice(begin + first, begin + last))
        begin += patches


def cache_tokens(grids: Sequence[Grid]) -> int:
    """Return how many positions of a cache keys and values take: whole blocks for each picture or moment of a video."""
    return sum(-(-height * width // BLOCK_SIZE) * BLOCK_SIZE * t for t, height, width in grids)


class VisionRun:
    """What the tower keeps of all patches while it works.

    Attributes:
        x: The residual stream, float32 (P, hidden).
        merged: The same memory, the patches of a token as one row, float32 (P / merge², merge² * hidden).
        q: Queries, float32 (P, heads, head_dim).
        cos: Cosines of their places, float32 (P, head_dim / 2).
        sin: Sines likewise.
        positions: Rows and columns of patches in their pictures, int32 (2, P).
        pixels: Room for those of a piece, uint8, where they are copied to a GPU; None where they are not.
        cache: Keys and values of one layer.
        chunks: How a layer goes through the patches.
    """

    def __init__(
        self,
        config: VisionConfig,
        grids: Sequence[Grid],
        cache: PagedCache,
        workspace: Workspace,
        budget: MemoryBudget,
    ) -> None:
        c, merge = config, config.spatial_merge_size
        self._grids, self._step, self._device = list(grids), workspace.tokens, workspace.device
        total = sum(t * h * w for t, h, w in grids)
        self._arena = Arena(
            run_bytes(c, grids, workspace),
            budget=budget,
            what=f"encoding pictures of {total} patches (fewer with max_pixels)",
            device=workspace.device,
        )
        self.x = self._arena.take((total, c.hidden_size))
        self.merged = self.x.reshape(total // merge**2, c.merged_size)
        self.q = self._arena.take((total, c.num_heads, c.head_dim))
        self.cos, self.sin = (self._arena.take((total, c.head_dim // 2)) for _ in range(2))
        self.positions = self._arena.take((2, total), int32)
        pixels = _pixel_bytes(c, grids, workspace)
        self.pixels = self._arena.take((pixels,), uint8) if pixels else None
        self._place(merge)
        self.cache = cache
        self.chunks = self._cut(cache.block_size)

    def pieces(self) -> Iterator[Piece]:
        """Return what is embedded together."""
        return _pieces(self._grids, self._step)

    def free(self) -> None:
        """Give the memory back."""
        self.cache.free()
        self._arena.storage.free()

    def _place(self, merge: int) -> None:
        """Write the row and the column of each patch: block by block of merge x merge, the blocks row by row."""
        rows, columns = array("i"), array("i")
        for t, height, width in self._grids:
            inside = [(y, x) for y in range(merge) for x in range(merge)]
            blocks = [(top, left) for top in range(0, height, merge) for left in range(0, width, merge)]
            rows.extend([top + y for top, _ in blocks for y, _ in inside] * t)
            columns.extend([left + x for _, left in blocks for _, x in inside] * t)
        for axis, values in zip(self.positions, (rows, columns), strict=True):
            axis.copy_(Tensor.from_buffer(values))

    def _cut(self, block_size: int) -> list[Chunk]:
        """Cut all patches into chunks; each picture, or moment of a video, is a sequence with blocks of its own."""
        frames = [height * width for t, height, width in self._grids for _ in range(t)]
        starts, blocks, ends = [0], list[range](), 0
        for patches in frames:
            count = -(-patches // block_size)
            starts.append(starts[-1] + patches)
            blocks.append(range(ends, ends + count))
            ends += count
        chunks: list[Chunk] = []
        frame = 0
        for first in range(0, starts[-1], self._step):
            last, inside = min(first + self._step, starts[-1]), list[tuple[int, int, int]]()
            while frame < len(frames) and starts[frame] < last:
                inside.append((frame, max(first, starts[frame]), min(last, starts[frame + 1])))
                if starts[frame + 1] > last:
                    break
                frame += 1
            most = max(len(blocks[f]) for f, _, _ in inside)
            writing, reading = (Slices(len(inside), most, device=self._device) for _ in range(2))
            for f, begin, end in inside:
                writing.append(end - begin, begin - starts[f], blocks[f])
                reading.append(end - begin, frames[f] - (end - begin), blocks[f])
            writing.send()
            reading.send()
            chunks.append(Chunk(slice(first, last), writing, reading, max(frames[f] for f, _, _ in inside)))
        return chunks
