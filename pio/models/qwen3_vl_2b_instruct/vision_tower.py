"""The tower: pixels in, embeddings for the decoder out."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final

from pio import ops
from pio.cache.format import CacheFormat
from pio.cache.paged import PagedCache
from pio.dtypes import DType, int32
from pio.layers.encoder import Embeddings
from pio.layers.source import Source
from pio.media.picture import open_picture
from pio.media.prepared import PreparedMedium, prepare_picture
from pio.media.preprocessor import PreprocessorConfig
from pio.memory.allocation import ALIGNMENT
from pio.memory.arena import Arena
from pio.memory.budget import MemoryBudget
from pio.models.qwen3_vl_2b_instruct.excerpt import Grid
from pio.models.qwen3_vl_2b_instruct.patch_embedding import PatchEmbedding
from pio.models.qwen3_vl_2b_instruct.patch_merger import PatchMerger
from pio.models.qwen3_vl_2b_instruct.vision_block import VisionBlock
from pio.models.qwen3_vl_2b_instruct.vision_config import VisionConfig
from pio.models.qwen3_vl_2b_instruct.vision_run import VisionRun, cache_tokens, run_bytes
from pio.ops.attention import BLOCK_SIZE
from pio.tensor import Tensor

PIECE: Final = 2e11  # operations between two yields: less than a chunk of a prompt takes


class VisionTower:
    """Encodes pictures and videos side by side, as ``pio.layers.encoder.Encoder`` says.

    A layer goes through all patches in chunks of as many rows as a step of the decoder has, in the same memory. First
    it computes the keys and values of all, then each patch looks at those of its picture, or of its moment of a video.
    So beside the residual stream, queries, keys and values there is nothing as large as a picture.

    Attributes:
        config: Its dimensions.
        blocks: Its layers.
        nbytes: Bytes of its weights.
    """

    def __init__(self, source: Source, config: VisionConfig, cache_dtype: DType, budget: MemoryBudget) -> None:
        """Take the weights below ``source``; keys and values are kept as ``cache_dtype``."""
        before = source.inventory.total
        self.config = config
        self.patch_embed = PatchEmbedding(source, config)
        self.blocks = [VisionBlock(source / "blocks" / i, config) for i in range(config.depth)]
        self.merger = PatchMerger(source / "merger", config, together=False)
        self.deepstack_merger_list = [
            PatchMerger(source / "deepstack_merger_list" / i, config, together=True) for i in range(config.levels)
        ]
        self._format = CacheFormat.keys_and_values(cache_dtype, config.num_heads, config.head_dim)
        quarter = config.head_dim // 4
        frequencies = [config.rope_theta ** (-i / quarter) for i in range(quarter)]
        self._inv_freq = Tensor.from_list(frequencies * 2, device=source.device)
        self._axes = Tensor.from_list([0] * quarter + [1] * quarter, int32, device=source.device)
        self._workspace, self._budget = source.workspace, budget
        self.nbytes = source.inventory.total - before

    @property
    def least_bytes(self) -> int:
        """What encoding the smallest picture takes, its embeddings included."""
        merge = self.config.spatial_merge_size
        return self._working_bytes([(1, merge, merge)]) + self._embeddings_bytes(1)

    def working_bytes(self, media: Sequence[PreparedMedium]) -> int:
        """Return the bytes that encoding media together takes until it is done."""
        return self._working_bytes([medium.grid for medium in media])

    def _working_bytes(self, grids: Sequence[Grid]) -> int:
        cached = cache_tokens(grids) // BLOCK_SIZE * self._format.block_bytes
        return run_bytes(self.config, grids, self._workspace) + cached

    def embeddings_bytes(self, medium: PreparedMedium) -> int:
        """Return the bytes of what encoding a medium gives."""
        return self._embeddings_bytes(medium.tokens)

    def _embeddings_bytes(self, tokens: int) -> int:
        return (4 * tokens * self.config.out_hidden_size + ALIGNMENT) * (1 + self.config.levels)

    def tokens(self, medium: PreparedMedium) -> int:
        """Return how many rows of embeddings encoding a medium gives."""
        return medium.tokens

    def operations(self, media: Sequence[PreparedMedium]) -> float:
        """Return the operations of encoding media; a patch of a video sees those of its moment."""
        return sum(self.config.operations(t * h * w, h * w) for t, h, w in (medium.grid for medium in media))

    def encode(self, media: Sequence[PreparedMedium]) -> Generator[None, None, list[Embeddings]]:
        """Encode media; errors and pieces as ``Encoder`` says."""
        found = [self._rooms_for(medium) for medium in media]
        run, done = self._run(media), 0.0
        for operations in self._chunks(media, run, found):
            done += operations
            if done >= PIECE:
                done = 0.0
                yield
        run.free()
        return found

    def _chunks(
        self, media: Sequence[PreparedMedium], run: VisionRun, found: Sequence[Embeddings]
    ) -> Generator[float, None, None]:
        """Do all the work, a chunk of patches through a part of a layer between any two yields of its operations."""
        c, levels = self.config, self.config.deepstack_visual_indexes
        for piece in run.pieces():
            x = run.x[piece.rows]
            self.patch_embed(media[piece.medium], piece.first, x, run.pixels)
            yield 2.0 * x.shape[0] * c.patch_elements * c.hidden_size
        for number, block in enumerate(self.blocks):
            keys, values = run.cache.layer(0)
            for chunk in run.chunks:
                x, turns = run.x[chunk.rows], (run.cos[chunk.rows], run.sin[chunk.rows])
                block.prepare(x, run.q[chunk.rows], turns, keys, values, chunk.writing)
                yield 6.0 * x.shape[0] * c.hidden_size**2
            for chunk in run.chunks:
                x = run.x[chunk.rows]
                block(x, run.q[chunk.rows], keys, values, chunk.reading)
                weights = c.hidden_size + 2 * c.intermediate_size
                yield 2.0 * x.shape[0] * c.hidden_size * (weights + 2 * chunk.seen)
            if number in levels:
                level = levels.index(number)
                outs = [additions[level] for _, additions in found]
                yield from self._merge(run, self.deepstack_merger_list[level], outs)
        yield from self._merge(run, self.merger, [rows for rows, _ in found])

    def warm_up(self) -> None:
        """Run one layer on a picture of one token, which is made of a larger one."""
        c = self.config
        side = c.spatial_merge_size * c.patch_size
        how = PreprocessorConfig(c.patch_size, c.temporal_patch_size, c.spatial_merge_size, side**2, side**2)
        medium = prepare_picture(open_picture(Tensor.zeros((3 * side + 1, 2 * side + 3, 4), "uint8")), how)
        blocks, self.blocks = self.blocks, self.blocks[:1]
        try:
            for _ in self.encode([medium]):
                pass
        finally:
            self.blocks = blocks

    def _merge(self, run: VisionRun, merger: PatchMerger, outs: Sequence[Tensor]) -> Generator[float, None, None]:
        """Merge the patches of each medium into its embeddings, as ``_chunks`` does its work."""
        wide, first = self.config.merged_size, 0
        for out in outs:
            for begin in range(0, out.shape[0], self._workspace.tokens):
                end = min(begin + self._workspace.tokens, out.shape[0])
                merger(run.merged[first + begin : first + end], out[begin:end])
                yield 2.0 * (end - begin) * wide * (wide + self.config.out_hidden_size)
            first += out.shape[0]

    def _rooms_for(self, medium: PreparedMedium) -> Embeddings:
        """Memory for what becomes of a medium."""
        shape = medium.tokens, self.config.out_hidden_size
        arena = Arena(
            self.embeddings_bytes(medium),
            budget=self._budget,
            what="the embeddings of a picture (fewer with max_pixels)",
            device=self._workspace.device,
        )
        rows, *additions = (arena.take(shape) for _ in range(1 + self.config.levels))
        return rows, tuple(additions)

    def _run(self, media: Sequence[PreparedMedium]) -> VisionRun:
        grids, device = [medium.grid for medium in media], self._workspace.device
        what = "keys and values of pictures (fewer with max_pixels)"
        cache = PagedCache(1, cache_tokens(grids), self._format, budget=self._budget, device=device, what=what)
        run = VisionRun(self.config, grids, cache, self._workspace, self._budget)
        ops.rope_table(run.positions, self._inv_freq, axes=self._axes, trusted=True, out_cos=run.cos, out_sin=run.sin)
        return run
