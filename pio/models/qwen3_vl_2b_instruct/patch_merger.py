"""Neighbouring patches become one embedding of the decoder."""

from __future__ import annotations

from pio import ops
from pio.layers.linear import Linear
from pio.layers.norm import LayerNorm
from pio.layers.source import Source
from pio.models.qwen3_vl_2b_instruct.vision_block import EPS, TOWER
from pio.models.qwen3_vl_2b_instruct.vision_config import VisionConfig
from pio.tensor import Tensor


class PatchMerger:
    """``fc2(gelu(fc1(patches)))``, of patches that were normed one by one, or those of a token together.

    Attributes:
        together: Whether the norm sees the patches of a token as one row.
    """

    def __init__(self, source: Source, config: VisionConfig, *, together: bool) -> None:
        merged = config.merged_size
        self.norm = LayerNorm(source / "norm", merged if together else config.hidden_size, EPS)
        self.linear_fc1 = Linear(source / "linear_fc1", merged, merged, bias=True, role=TOWER)
        self.linear_fc2 = Linear(source / "linear_fc2", config.out_hidden_size, merged, bias=True, role=TOWER)
        self.together = together
        self._hidden = config.hidden_size
        shapes = {"normed": (merged,), "wide": (merged,)}
        self._rooms = source.workspace.rooms("patch merger", shapes, _rooms)

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """Merge patches that lie side by side.

        Shapes: x float32 (T, merge * merge * hidden); out float32 (T, out_hidden).
        """
        normed, wide = self._rooms(x.shape[0])
        if self.together:
            self.norm(x, normed)
        else:
            each = -1, self._hidden
            self.norm(x.reshape(*each), normed.reshape(*each))
        self.linear_fc1(normed, wide)
        ops.gelu(wide, approximate="none", out=wide)
        return self.linear_fc2(wide, out)


def _rooms(made: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return made["normed"], made["wide"]
