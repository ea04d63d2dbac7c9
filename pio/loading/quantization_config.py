"""``quantization_config`` of config.json: what ``pio quantize`` writes there, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, Self, cast, get_args

from pio.errors import CheckpointError, UnsupportedModelError
from pio.loading.model_file import shown

Format = Literal["int8", "int4", "int4_zero_point"]
Policy = Literal["balanced", "uniform"]

FIELD: Final = "quantization_config"
METHOD: Final = "pio"
VERSION: Final = 1  # of the layout of packed tensors
GROUP: Final = 32  # weights that share a scale
_AGAIN: Final = "quantize the original folder again with pio quantize"


_ORIGINAL: Final = (
    "and pio reads only what pio quantize wrote; use the model's original 16-bit folder, with quantize= or as it is"
)
_ELSEWHERE: Final = {"quantization": "MLX", "compression_config": "compressed-tensors"}


@dataclass(frozen=True, slots=True)
class StoredQuantization:
    """How a folder's matrices are packed.

    Attributes:
        format: How numbers are stored.
        policy: Which matrices keep more bits.
    """

    format: Format
    policy: Policy

    def as_dict(self) -> dict[str, Any]:
        """Return the object that config.json holds."""
        return {
            "quant_method": METHOD,
            "format": self.format,
            "policy": self.policy,
            "group_size": GROUP,
            "version": VERSION,
        }

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Self | None:
        """Return what config.json says, or None where its weights are not quantized.

        Args:
            raw: The object in config.json.

        Raises:
            CheckpointError: The field is not what ``pio quantize`` writes.
            UnsupportedModelError: Another program quantized the weights, or a pio whose layout is another.
        """
        for field, program in _ELSEWHERE.items():
            if raw.get(field) is not None:
                raise UnsupportedModelError(
                    f"config.json: by its field {field} the weights were quantized by {program}, {_ORIGINAL}"
                )
        value = raw.get(FIELD)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise CheckpointError(
                f"config.json: {FIELD} is {shown(value)}, expected an object or null; correct the field or download "
                "the model again"
            )
        fields = cast("dict[str, Any]", value)
        method = fields.get("quant_method")
        if method != METHOD:
            told = f"quant_method is {shown(method)}"
            if method is None:
                told = f"quant_method is missing, as in a folder of {_program(fields)}"
            raise UnsupportedModelError(f"config.json: {FIELD}.{told}, {_ORIGINAL}")
        for name, expected in (("version", VERSION), ("group_size", GROUP)):
            if type(fields.get(name)) is not int or fields[name] != expected:
                _unsupported(name, fields.get(name), str(expected))
        for name, known in (("format", get_args(Format)), ("policy", get_args(Policy))):
            if fields.get(name) not in known:
                _unsupported(name, fields.get(name), " or ".join(known))
        return cls(fields["format"], fields["policy"])


def _program(fields: dict[str, Any]) -> str:
    """Say who writes such an object without quant_method."""
    if any(name.lstrip("_").startswith("load_in_") for name in fields):
        return "bitsandbytes"
    return "GPTQ or MLX" if "bits" in fields else "another program"


def _unsupported(name: str, found: Any, expected: str) -> NoReturn:
    raise UnsupportedModelError(
        f"config.json: {FIELD}.{name} is {shown(found)}, this version of pio reads {expected}; update pio, or {_AGAIN}"
    )
