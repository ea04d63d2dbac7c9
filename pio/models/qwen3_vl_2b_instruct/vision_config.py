"""What config.json says of the tower that looks at pictures."""

from __future__ import annotations

import logging
from math import isqrt
from typing import Any, Final, Literal, Self, cast

from pydantic import ConfigDict, Field, ValidationError

from pio.config.decoder import explained
from pio.config.described_fields import DescribedFields
from pio.errors import CheckpointError, UnsupportedModelError
from pio.loading import config_json
from pio.loading.model_file import shown

WHERE: Final = "config.json: vision_config"
# Fields without effect on what is computed, beside those below.
_SILENT: Final = frozenset(
    """_attn_implementation architectures attn_implementation dtype fullatt_block_indexes initializer_range model_type
    output_attentions output_hidden_states return_dict rope_parameters rope_scaling tokens_per_second torch_dtype
    transformers_version window_size""".split()
)
# The class defaults of transformers, which are those of a larger model.
_DEFAULTS: Final = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 3584,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
    "hidden_act": "gelu_pytorch_tanh",
}

_log = logging.getLogger("pio.config")


class VisionConfig(DescribedFields, frozen=True):
    """Dimensions of the tower."""

    model_config = ConfigDict(extra="ignore", strict=True)

    depth: int = Field(gt=0, le=4096)
    """Layers."""

    hidden_size: int = Field(gt=0, le=1 << 20)
    """Width of the residual stream."""

    intermediate_size: int = Field(gt=0, le=1 << 22)
    """Width of the feed-forward blocks."""

    num_heads: int = Field(gt=0, le=65536)
    """Heads of queries, keys and values."""

    in_channels: Literal[3]
    """Colours of a pixel."""

    patch_size: int = Field(gt=0, le=1024)
    """Pixels along a side of a patch."""

    spatial_merge_size: int = Field(gt=0, le=64)
    """Patches along a side of what becomes a token."""

    temporal_patch_size: int = Field(gt=0, le=64)
    """Frames of a patch."""

    out_hidden_size: int = Field(gt=0, le=1 << 20)
    """Width of the embeddings that come out, that of the decoder."""

    num_position_embeddings: int = Field(gt=0, le=1 << 24)
    """Rows of the table of positions, which is a square."""

    deepstack_visual_indexes: tuple[int, ...]
    """Layers whose outputs are added behind the decoder's first ones."""

    hidden_act: Literal["gelu_pytorch_tanh"]
    """Activation of the feed-forward blocks."""

    rope_theta: float = Field(gt=0)
    """Base of the tower's rotary embedding."""

    @classmethod
    def read(cls, raw: Any) -> Self:
        """Read the object, with the defaults that the architecture has in transformers.

        Raises:
            CheckpointError: A field has the wrong type, or contradicts another.
            UnsupportedModelError: A field asks for something that pio does not compute.
        """
        if not isinstance(raw, dict):
            raise CheckpointError(f"{WHERE} is {shown(raw)}, expected an object; download the model again")
        given = cast("dict[str, Any]", raw)
        fields = {**_DEFAULTS, **{name: value for name, value in given.items() if value is not None}}
        rope = config_json.rope_parameters(given)
        fields["rope_theta"] = rope["rope_theta"]
        if rope["rope_type"] not in ("default", "axial"):  # the same: rows turn one half of a head, columns the other
            raise UnsupportedModelError(
                f"{WHERE}.rope_type is {shown(rope['rope_type'])}, pio computes 'axial' here; choose another model"
            )
        levels = fields["deepstack_visual_indexes"]
        if isinstance(levels, list):
            fields["deepstack_visual_indexes"] = tuple(cast("list[Any]", levels))
        unknown = sorted(fields.keys() - cls.model_fields.keys() - _SILENT)
        if unknown:
            names = ", ".join(map(shown, unknown[:20]))
            _log.warning("%s: pio does not know %s; the answers may differ from the model's", WHERE, names)
        try:
            found = cls.model_validate(fields)
        except ValidationError as error:
            raise explained(error, f"{WHERE}.") from None
        found._check()
        return found

    def _check(self) -> None:
        wrong = {
            "num_heads": (self.hidden_size % self.num_heads, f"a divisor of hidden_size, {self.hidden_size}"),
            "hidden_size": (self.head_dim % 4, f"a multiple of 4 x num_heads, {4 * self.num_heads}"),
            "num_position_embeddings": (
                isqrt(self.num_position_embeddings) ** 2 - self.num_position_embeddings,
                "a square",
            ),
            "deepstack_visual_indexes": (
                [*self.deepstack_visual_indexes] != sorted({*self.deepstack_visual_indexes} & {*range(self.depth)}),
                f"ascending numbers from 0 to {self.depth - 1}",
            ),
        }
        for name, (bad, expected) in wrong.items():
            if bad:
                raise CheckpointError(
                    f"{WHERE}.{name} is {getattr(self, name)}, expected {expected}; download the model again"
                )

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_heads

    @property
    def patch_elements(self) -> int:
        """Numbers of a patch."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def merged_size(self) -> int:
        """Width of the patches that become one token, side by side."""
        return self.hidden_size * self.spatial_merge_size**2

    @property
    def levels(self) -> int:
        """How many layers' outputs are added behind the decoder's first ones."""
        return len(self.deepstack_visual_indexes)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        h, wide, out = self.hidden_size, self.intermediate_size, self.out_hidden_size
        block = 4 * h * h + 4 * h + 2 * h * wide + wide + h + 4 * h
        merger = self.merged_size**2 + self.merged_size + self.merged_size * out + out
        mergers = (1 + self.levels) * merger + 2 * h + 2 * self.levels * self.merged_size
        return (self.patch_elements + 1) * h + self.num_position_embeddings * h + self.depth * block + mergers

    def operations(self, patches: int, together: int | None = None) -> float:
        """Return the operations of encoding so many patches, of which ``together`` (all) see each other."""
        weights = self.parameters - self.num_position_embeddings * self.hidden_size
        seen = patches if together is None else together
        merged = (1 + self.levels) * self.merged_size * (self.merged_size + self.out_hidden_size)
        dense = weights - merged + merged / self.spatial_merge_size**2
        return patches * (2.0 * dense + 4.0 * self.depth * self.hidden_size * seen)
