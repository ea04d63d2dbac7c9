"""Configuration of Qwen3-VL-2B-Instruct and other dense ``qwen3_vl`` models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import Field

from pio.config.decoder import DecoderConfig
from pio.config.qwen3 import Qwen3Architecture
from pio.errors import CheckpointError, UnsupportedModelError
from pio.loading.model_file import shown
from pio.models.qwen3_vl_2b_instruct.vision_config import VisionConfig

_TOP = ("architectures", "model_type", "quantization_config", "auto_map")


class Qwen3VLConfig(DecoderConfig, frozen=True):
    """config.json of a ``qwen3_vl`` checkpoint: its ``text_config``, with the tower and the marks beside it.

    Attributes:
        released: What tells the released model from others of its architecture, by the names of ``text_config``. No
            default of absent fields: those are the architecture's.
    """

    released: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "max_position_embeddings": 262_144,
        "rope_theta": 5_000_000,
        "tie_word_embeddings": True,
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        **Qwen3Architecture.defaults,
        "max_position_embeddings": 128_000,
        "image_token_id": 151_655,
        "video_token_id": 151_656,
        "vision_start_token_id": 151_652,
        "vision_end_token_id": 151_653,
    }
    same_as: ClassVar[Mapping[str, str]] = Qwen3Architecture.same_as
    silent_fields: ClassVar[frozenset[str]] = DecoderConfig.silent_fields | {"vision_config"}
    heads: ClassVar[tuple[str, ...]] = ("ForConditionalGeneration",)

    model_type: Literal["qwen3_vl"]
    """Architecture."""

    image_token_id: int = Field(ge=0)
    """Stands for each token of a picture."""

    video_token_id: int = Field(ge=0)
    """Stands for each token of a video."""

    vision_start_token_id: int = Field(ge=0)
    """Before the tokens of a picture, or of a moment of a video."""

    vision_end_token_id: int = Field(ge=0)
    """Behind them."""

    vision: VisionConfig
    """The tower."""

    @property
    def marks(self) -> tuple[int, ...]:
        """Tokens that stand for something to be seen, or around it, and that no answer holds."""
        return self.image_token_id, self.video_token_id, self.vision_start_token_id, self.vision_end_token_id

    @property
    def mrope_section(self) -> tuple[int, ...]:
        """Of a head's pairs how many turn by time, by height and by width."""
        return tuple(self.rope["mrope_section"])

    @property
    def pair_axes(self) -> list[int]:
        """Which axis turns each pair of a head: time, height and width in turns, and time where these have enough."""
        _, height, width = self.mrope_section
        axes = [0] * (self.head_dim // 2)
        for axis, count in ((1, height), (2, width)):
            for i in range(axis, min(3 * count, len(axes)), 3):
                axes[i] = axis
        return axes

    @classmethod
    def from_checkpoint(cls, raw: dict[str, Any]) -> Self:
        """Read config.json of either style; errors as in ``DecoderConfig.from_checkpoint``."""
        text: Any = raw.get("text_config")
        if not isinstance(text, dict):
            raise CheckpointError(
                f"config.json: text_config is {shown(text)}, expected an object; download the model again"
            )
        given = cast("dict[str, Any]", text)
        if given.get("model_type") not in (None, "qwen3_vl_text"):
            raise UnsupportedModelError(
                f"config.json: text_config.model_type is {shown(given['model_type'])}, this architecture has "
                "qwen3_vl_text; choose another model or a plugin for this one"
            )
        top = {name: raw.get(name) for name in (*_TOP, *(n for n in cls.defaults if n.endswith("_token_id")))}
        merged = {**given, **{name: value for name, value in top.items() if value is not None}}
        merged["vision_config"] = raw.get("vision_config")
        for name in (
            "tie_word_embeddings",
            "dtype",
            "torch_dtype",
            "eos_token_id",
        ):  # where both have it, the upper counts
            if raw.get(name) is not None:
                merged[name] = raw[name]
        if not any(_has_theta(given.get(name)) for name in ("rope_scaling", "rope_parameters")):
            merged.setdefault("rope_theta", 500_000)
        return super().from_checkpoint(merged)

    @classmethod
    def _fill(cls, fields: dict[str, Any]) -> None:
        fields["vision"] = VisionConfig.read(fields["vision_config"])
        fields["rope"].setdefault("mrope_section", [24, 20, 20])
        super()._fill(fields)

    def _check(self) -> None:
        super()._check()
        found: Any = self.rope["mrope_section"]
        section = cast("list[Any]", found) if isinstance(found, list) else []
        counts = len(section) == 3 and all(isinstance(n, int) and n >= 0 for n in section)
        if not counts or sum(section) != self.head_dim // 2:
            raise CheckpointError(
                f"config.json: text_config.mrope_section is {shown(cast('object', found))}, expected three numbers "
                f"that make {self.head_dim // 2}, half of head_dim; download the model again"
            )
        if self.rope.get("mrope_interleaved") is False:
            raise UnsupportedModelError(
                "config.json: text_config.mrope_interleaved is false, this architecture turns heads by time, height "
                "and width in turns; choose another model or a plugin for this one"
            )
        vision = self.vision
        if vision.out_hidden_size != self.hidden_size:
            raise CheckpointError(
                f"config.json: vision_config.out_hidden_size is {vision.out_hidden_size}, expected that of the "
                f"decoder, {self.hidden_size}; download the model again"
            )
        if vision.levels >= self.num_hidden_layers:
            raise UnsupportedModelError(
                f"config.json: vision_config.deepstack_visual_indexes has {vision.levels} entries, pio adds them "
                f"behind all but the last of the decoder's {self.num_hidden_layers} layers; choose another model"
            )
        for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
            if getattr(self, name) >= self.vocab_size:
                raise CheckpointError(
                    f"config.json: {name} is {getattr(self, name)}, expected one below vocab_size, {self.vocab_size}; "
                    "download the model again"
                )

    @property
    def tower_parameters(self) -> int:
        """Number of weights of the tower."""
        return self.vision.parameters

    def _count_parameters(self, experts: int = 0) -> int:
        return super()._count_parameters(experts) + self.vision.parameters


def _has_theta(rope: Any) -> bool:
    return isinstance(rope, dict) and cast("dict[str, Any]", rope).get("rope_theta") is not None
