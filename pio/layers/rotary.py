"""Rotary position embedding and its scalings for long contexts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pio import ops
from pio.dtypes import int32
from pio.errors import CheckpointError, TensorError, UnsupportedModelError
from pio.layers.source import Source
from pio.tensor import Tensor


class RotaryEmbedding:
    """Angles of rotary position embedding (Su et al. 2021, arXiv:2104.09864).

    Attributes:
        inv_freq: Angle of one step for each pair of elements, float32 (rotary / 2,).
        scale: Factor of cosine and sine (YaRN's attention factor).
        axes: How many numbers a position has.
        tables: Cosine and sine that all layers of a step of T tokens share, both float32 (T, rotary / 2).
    """

    axes: int = 1

    def __init__(self, source: Source, rope: Mapping[str, Any], width: int) -> None:
        """Make the table of frequencies.

        Args:
            source: Of the model, whose workspace has the tables.
            rope: Parameters as ``pio.loading.config_json.rope_parameters`` gives them.
            width: How many elements of a head turn.

        Raises:
            UnsupportedModelError: The type of scaling is not known.
            CheckpointError: A parameter of the scaling is missing or cannot be used.
        """
        base = [rope["rope_theta"] ** (-2 * i / width) for i in range(width // 2)]
        rope_type = rope["rope_type"]
        make = _SCALINGS.get(rope_type)
        if make is None:
            raise UnsupportedModelError(
                f"config.json: rope_type is {rope_type!r}, pio knows {', '.join(_SCALINGS)}; choose another checkpoint"
            )
        for field in _NEEDED.get(rope_type, ()):
            if not isinstance(rope.get(field), (int, float)) or rope[field] <= 0:
                raise CheckpointError(
                    f"config.json: rope_type {rope_type!r} needs {field}, found {rope.get(field)!r}; "
                    "download the model again"
                )
        frequencies, self.scale = make(base, rope, width)
        self.inv_freq = Tensor.from_list(frequencies, device=source.device)
        half = {"cos": (width // 2,), "sin": (width // 2,)}
        self.tables = source.workspace.rooms("rotary embedding", half, _tables)

    def __call__(self, positions: Tensor) -> None:
        """Fill the tables of a step.

        Shapes: positions int32 (T,).
        """
        cos, sin = self.tables(positions.shape[0])
        ops.rope_table(positions, self.inv_freq, scale=self.scale, out_cos=cos, out_sin=sin)


class MultiAxisRotaryEmbedding(RotaryEmbedding):
    """Rotary embedding of tokens that have a position on each of several axes, such as time, height and width.

    Each pair of elements turns by the position on one of them (Wang et al. 2024, arXiv:2409.12191). A token of text has
    the same on all, and turns as ``RotaryEmbedding`` turns it.

    Attributes:
        pair_axes: Which axis turns each pair, int32 (rotary / 2,).
    """

    def __init__(
        self, source: Source, rope: Mapping[str, Any], width: int, pair_axes: Sequence[int], axes: int
    ) -> None:
        """Make the tables; ``pair_axes`` says for each pair which of so many axes turns it, the rest is as before.

        Raises:
            TensorError: There is no such axis.
        """
        super().__init__(source, rope, width)
        if not all(0 <= axis < axes for axis in pair_axes):
            raise TensorError(f"pair_axes {list(pair_axes)} name an axis that is none: there are {axes}, from 0 on")
        self.pair_axes = Tensor.from_list(list(pair_axes), int32, device=source.device)
        self.axes = axes

    def __call__(self, positions: Tensor) -> None:
        """Fill the tables of a step.

        Shapes: positions int32 (axes, T).
        """
        cos, sin = self.tables(positions.shape[1])
        axes, scale = self.pair_axes, self.scale
        ops.rope_table(positions, self.inv_freq, axes=axes, scale=scale, trusted=True, out_cos=cos, out_sin=sin)


def _tables(made: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return made["cos"], made["sin"]


def _default(base: list[float], rope: Mapping[str, Any], width: int) -> tuple[list[float], float]:
    return base, 1.0


def _linear(base: list[float], rope: Mapping[str, Any], width: int) -> tuple[list[float], float]:
    return [f / rope["factor"] for f in base], 1.0


def _llama3(base: list[float], rope: Mapping[str, Any], width: int) -> tuple[list[float], float]:
    """Long waves are stretched, short ones kept, those between blended (Llama 3.1 model card)."""
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    if low >= high:
        raise CheckpointError(
            f"config.json: low_freq_factor is {low}, expected less than high_freq_factor, {high}; "
            "download the model again"
        )

    def scaled(f: float) -> float:
        turns = original * f / (2 * math.pi)  # how often the pair turns within the original context
        if turns < low:
            return f / factor
        if turns > high:
            return f
        keep = (turns - low) / (high - low)
        return (1 - keep) * f / factor + keep * f

    return [scaled(f) for f in base], 1.0


def _yarn(base: list[float], rope: Mapping[str, Any], width: int) -> tuple[list[float], float]:
    """YaRN (Peng et al. 2023, arXiv:2309.00071): stretch by wavelength, and sharpen attention."""
    original, factor, theta = rope["original_max_position_embeddings"], rope["factor"], rope["rope_theta"]
    if theta <= 1:
        raise CheckpointError(f"config.json: rope_theta is {theta}, YaRN needs more than 1; download the model again")

    def pair(turns: float) -> float:
        """The pair that turns so often within the original context."""
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair(rope.get("beta_fast") or 32), pair(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    if first == last:
        last += 0.001
    stretched = [min(max((i - first) / (last - first), 0.0), 1.0) for i in range(width // 2)]
    frequencies = [f / factor * s + f * (1 - s) for f, s in zip(base, stretched, strict=True)]
    return frequencies, _yarn_attention_factor(rope, factor)


def _yarn_attention_factor(rope: Mapping[str, Any], factor: float) -> float:
    given = rope.get("attention_factor")
    if given is not None:
        return given

    def sharpen(strength: float) -> float:
        return 0.1 * strength * math.log(factor) + 1.0 if factor > 1 else 1.0

    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return sharpen(rope["mscale"]) / sharpen(rope["mscale_all_dim"])
    return sharpen(1.0)


_NEEDED = {
    "linear": ("factor",),
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
_SCALINGS = {"default": _default, "linear": _linear, "llama3": _llama3, "yarn": _yarn}
