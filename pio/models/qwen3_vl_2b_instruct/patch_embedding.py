"""What patches of pixels become before the first layer."""

from __future__ import annotations

from pio import ops
from pio.layers.linear import project
from pio.layers.source import Recipe, Source
from pio.media.prepared import PreparedMedium
from pio.models.qwen3_vl_2b_instruct.excerpt import excerpt
from pio.models.qwen3_vl_2b_instruct.vision_config import VisionConfig
from pio.tensor import Tensor


class PatchEmbedding:
    """A matrix product of patches, which is the convolution of the published model, and the place of each.

    It keeps the weights as stored, also where others are quantized: all that is seen passes through it once.
    """

    def __init__(self, source: Source, config: VisionConfig) -> None:
        c, shape = config, (config.hidden_size, config.patch_elements)
        stored = (c.hidden_size, c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size)
        at = source / "patch_embed" / "proj"
        recipe = Recipe(stored, lambda weight: [weight.reshape(shape)], (), (shape,))
        self.weight = at.remake("weight", recipe)[0]  # (hidden, patch)
        self.bias = at.take("bias", c.hidden_size)
        self.positions = (source / "pos_embed").take("weight", c.num_position_embeddings, c.hidden_size)
        self.config = config
        self.workspace = source.workspace
        self.workspace.expect(self.weight)
        self._rooms = self.workspace.rooms("patches", {"patches": (c.patch_elements,)}, _patches)

    def __call__(self, medium: PreparedMedium, first: int, x: Tensor, room: Tensor | None = None) -> None:
        """Write the embeddings of patches to x.

        Shapes: x float32 (T, hidden), the patches from ``first`` on; room uint8, for what they are cut from where x
        lies on a GPU and the pixels do not.
        """
        c, (_, height, width) = self.config, medium.grid
        patches = self._rooms(x.shape[0])
        frames, grid, at = medium.frames, medium.grid, first
        if room is not None:
            cut = excerpt(c, grid, first, x.shape[0])
            seen = cut.pixels(medium)
            frames, grid, at = room[: seen.size].reshape(seen.shape).copy_(seen), cut.grid, cut.first
        ops.image_patches(
            frames,
            grid,
            at,
            patch=c.patch_size,
            temporal=c.temporal_patch_size,
            merge=c.spatial_merge_size,
            mean=medium.mean,
            std=medium.std,
            out=patches,
        )
        project(patches, self.weight, self.bias, x, self.workspace)
        ops.add_grid_embedding(x, self.positions, (height, width), first=first, merge=c.spatial_merge_size)


def _patches(made: dict[str, Tensor]) -> Tensor:
    return made["patches"]
