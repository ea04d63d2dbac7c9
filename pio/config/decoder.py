"""What a dense decoder's config.json says, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import ConfigDict, Field, ValidationError

from pio.config.described_fields import DescribedFields
from pio.config.known_fields import NEUTRAL, SILENT, check_fields
from pio.errors import CheckpointError, UnsupportedModelError
from pio.loading import config_json
from pio.loading.model_file import shown
from pio.loading.quantization_config import StoredQuantization

LayerKind = Literal["full_attention", "sliding_attention", "linear_attention"]

_TYPES = {  # what pydantic's kinds of error ask for, in the words of JSON
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "dict_type": "an object",
}

# Fields of a config class that are made of others.
_MADE = frozenset(("rope", "stored_dtype", "eos_token_ids", "quantization"))


class DecoderConfig(DescribedFields, frozen=True):
    """Dimensions and options of a decoder of attention and feed-forward layers.

    A model's own config class narrows the fields to what its code can do.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    defaults: ClassVar[Mapping[str, Any]] = {}  # of absent fields, as the architecture has them in transformers
    other_names: ClassVar[Mapping[str, str]] = {}  # where a field may stand instead, if it is absent or null
    same_as: ClassVar[Mapping[str, str]] = {}  # which field a null one, or an absent one without default, is equal to
    silent_fields: ClassVar[frozenset[str]] = SILENT
    neutral_fields: ClassVar[Mapping[str, tuple[Any, ...]]] = NEUTRAL
    heads: ClassVar[tuple[str, ...]] = ("ForCausalLM", "LMHeadModel")  # ends of names in architectures
    kinds: ClassVar[frozenset[str]] = frozenset(("full_attention", "sliding_attention"))  # of layers
    turns_part: ClassVar[bool] = False  # whether rotary embedding may leave a part of a head as it is
    qk_norm: ClassVar[bool] = True  # whether each head of queries and keys has a norm

    model_type: str
    """Architecture, as transformers names it."""

    vocab_size: int = Field(gt=0, le=1 << 24)
    """Rows of the embedding and of the output head."""

    hidden_size: int = Field(gt=0, le=1 << 20)
    """Width of the residual stream."""

    intermediate_size: int = Field(gt=0, le=1 << 22)
    """Width of the feed-forward block."""

    num_hidden_layers: int = Field(gt=0, le=4096)
    """Layers."""

    num_attention_heads: int = Field(gt=0, le=65536)
    """Query heads."""

    num_key_value_heads: int = Field(gt=0, le=65536)
    """Key and value heads."""

    head_dim: int = Field(gt=0, le=65536, multiple_of=2)
    """Width of a head; even, for rotary embedding."""

    hidden_act: Literal["silu"]
    """Activation of the feed-forward block."""

    rms_norm_eps: float = Field(ge=0, lt=1)
    """Added to the mean square in norms."""

    max_position_embeddings: int = Field(gt=0, le=1 << 30)
    """Tokens of context that the model was trained for."""

    tie_word_embeddings: bool
    """Whether the output head is the embedding."""

    attention_bias: bool
    """Whether the attention projections have biases."""

    sliding_window: int | None = Field(default=None, gt=0)
    """How many positions up to its own a token sees in layers of the kind sliding_attention."""

    layer_types: tuple[LayerKind, ...]
    """Kind of attention of each layer."""

    rope: dict[str, Any]
    """Rotary parameters, as ``pio.loading.config_json.rope_parameters`` gives them."""

    stored_dtype: str | None
    """Element type of the weights, as the file says."""

    eos_token_ids: tuple[int, ...]
    """Tokens that end an answer."""

    quantization: StoredQuantization | None = None
    """How the folder's matrices are packed; None where they are floats."""

    @property
    def max_positions(self) -> int:
        """Tokens of context, with the stretch of YaRN where a config leaves max_position_embeddings as it was."""
        stretched = 0
        if self.rope["rope_type"] == "yarn":
            stretched = int(self.rope["factor"] * self.rope["original_max_position_embeddings"])
        return max(self.max_position_embeddings, stretched)

    @property
    def parameters(self) -> int:
        """Number of weights, for layers with two norms, and those of queries and keys if there are such."""
        return self._count_parameters()

    @property
    def active_parameters(self) -> int:
        """Number of weights that one token meets; fewer than all in a mixture of experts."""
        return self.parameters

    @property
    def tower_parameters(self) -> int:
        """Number of weights of what looks at pictures, among ``parameters``; no token meets them."""
        return 0

    @property
    def last_feed_parameters(self) -> int:
        """Number of weights that one token meets in the last layer's feed-forward block."""
        return self._feed_parameters(self.num_hidden_layers - 1)

    def expert_share(self, sequences: int) -> float:
        """Return which part of the experts' weights a step of so many tokens reads, if all experts are as likely."""
        del sequences  # a dense model has none
        return 1.0

    def attention_operations(self, positions: float) -> float:
        """Return the operations of all layers that mix tokens, but their matrices, for one that sees so many others."""
        return 4.0 * self.num_hidden_layers * self.num_attention_heads * self.head_dim * positions

    def _count_parameters(self, experts: int = 0) -> int:
        """Weights of embedding, layers, norms and output head, with that many experts in each layer that has some."""
        width, tables = self.hidden_size, 1 if self.tie_word_embeddings else 2
        layers = range(self.num_hidden_layers)
        inside = sum(self._mixer_parameters(i) + self._feed_parameters(i, experts) + 2 * width for i in layers)
        return tables * self.vocab_size * width + inside + width

    def _mixer_parameters(self, layer: int) -> int:
        """Weights of what mixes the tokens of a layer: here attention with grouped queries, in all layers alike."""
        del layer
        width, heads = self.hidden_size, self.num_attention_heads + self.num_key_value_heads
        attention = 2 * heads * self.head_dim * width + (2 * self.head_dim if self.qk_norm else 0)
        if self.attention_bias:
            attention += (heads + self.num_key_value_heads) * self.head_dim + width
        return attention

    def _feed_parameters(self, layer: int, experts: int = 0) -> int:
        """Weights of a layer's feed-forward block, with that many experts if it has some."""
        del layer, experts
        return 3 * self.hidden_size * self.intermediate_size

    def attends(self, layer: int) -> bool:
        """Return whether that layer attends to positions; else it keeps a state."""
        return self.layer_types[layer] != "linear_attention"

    def window(self, layer: int) -> int | None:
        """Return how many positions a token of that layer sees; None is all."""
        return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None

    @classmethod
    def from_checkpoint(cls, raw: dict[str, Any]) -> Self:
        """Read config.json of either style, with the defaults that the architecture has in transformers.

        Raises:
            CheckpointError: A field is missing, has the wrong type, or contradicts another; the message names it.
            UnsupportedModelError: A field asks for something that pio does not compute, or the weights are quantized in
                a way that it does not read.
        """
        rope = config_json.rope_parameters(raw)
        fields = {**raw, "rope": rope, "stored_dtype": config_json.dtype(raw)}
        fields["eos_token_ids"] = eos_token_ids(raw, "config.json")
        fields["quantization"] = StoredQuantization.read(raw)
        cls._complete(fields)
        cls._fill(fields)
        layer_types: Any = fields.get("layer_types")
        if isinstance(layer_types, list):
            fields["layer_types"] = tuple(cast("list[Any]", layer_types))
        known = (cls.model_fields.keys() - _MADE) | cls.silent_fields | set(cls.other_names.values())
        neutral = {"use_qk_norm": (cls.qk_norm,), **cls.neutral_fields}
        check_fields(raw, rope, known=known, neutral=neutral, heads=cls.heads)
        try:
            config = cls.model_validate(fields)
        except ValidationError as error:
            raise explained(error) from None
        config._check()
        return config

    @classmethod
    def _complete(cls, fields: dict[str, Any]) -> None:
        """Put in what the tables of the class say of absent fields."""
        for name, other in cls.other_names.items():
            if fields.get(name) is None and other in fields:
                fields[name] = fields[other]
        for name, value in cls.defaults.items():
            fields.setdefault(name, value)
        for name, other in cls.same_as.items():
            if fields.get(name) is None and other in fields:
                fields[name] = fields[other]

    @classmethod
    def _fill(cls, fields: dict[str, Any]) -> None:
        """Put in what of absent fields follows from others; a model's config class adds its own."""
        used = fields.get("use_sliding_window")
        if not isinstance(used, bool | None):
            raise _wrong("use_sliding_window", used, "true or false")
        window = fields.get("sliding_window", 4096) if used else None
        fields["sliding_window"] = window
        layers = fields.get("num_hidden_layers")
        if fields.get("layer_types") is None and isinstance(layers, int) and 0 < layers <= 4096:
            first = fields.get("max_window_layers", 28)
            if window and (isinstance(first, bool) or not isinstance(first, int)):
                raise _wrong("max_window_layers", first, "a whole number")
            sliding = [bool(window) and i >= first for i in range(layers)]
            fields["layer_types"] = ["sliding_attention" if s else "full_attention" for s in sliding]

    def _check(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise CheckpointError(
                f"config.json: num_attention_heads is {self.num_attention_heads}, expected a multiple of "
                f"num_key_value_heads, {self.num_key_value_heads}; download the model again"
            )
        if len(self.layer_types) != self.num_hidden_layers:
            raise CheckpointError(
                f"config.json: layer_types has {len(self.layer_types)} entries, expected num_hidden_layers, "
                f"{self.num_hidden_layers}; download the model again"
            )
        other = sorted(set(self.layer_types) - self.kinds)
        if other:
            raise UnsupportedModelError(
                f"config.json: layer_types has {other[0]}, this architecture has {', '.join(sorted(self.kinds))}; "
                "choose another model or a plugin for this one"
            )
        turning = self.rope.get("partial_rotary_factor", 1.0)
        if turning != 1.0 and not self.turns_part:
            raise UnsupportedModelError(
                f"config.json: partial_rotary_factor is {turning}, this architecture turns whole heads; "
                "choose another model or a plugin for this one"
            )
        if "sliding_attention" in self.layer_types and self.sliding_window is None:
            raise CheckpointError(
                "config.json: layer_types has sliding_attention but sliding_window is not set, or use_sliding_window "
                "is false; set both, or download the model again"
            )


def eos_token_ids(raw: dict[str, Any], file: str) -> tuple[int, ...]:
    """Return the tokens that end an answer, which a file gives as a number, a list, or not at all.

    Configs of models for text and pictures have them in ``text_config`` too.

    Raises:
        CheckpointError: One is no token id; the message names file and field.
    """
    text: Any = raw.get("text_config")
    inner = cast("dict[str, Any]", text) if isinstance(text, dict) else {}
    found = [(f"{file}: eos_token_id", raw), (f"{file}: text_config.eos_token_id", inner)]
    return tuple(dict.fromkeys(i for where, fields in found for i in _token_ids(fields.get("eos_token_id"), where)))


def _token_ids(value: object, where: str) -> list[int]:
    """The token ids in a field that holds one, a list, or nothing."""
    found: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [] if value is None else [value]
    for token in found:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise CheckpointError(
                f"{where} is {str(cast('object', value))[:80]}, expected a token id or a list of them; correct the "
                "field or download the model again"
            )
    return found


def explained(error: ValidationError, below: str = "config.json: ") -> CheckpointError | UnsupportedModelError:
    """Return an error that says the first problem in one line, which names the field; ``below`` is where fields are."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "the file"
    found: Any = first.get("input")
    if first["type"] == "literal_error":
        return UnsupportedModelError(
            f"{below}{field} is {shown(found)}, pio computes {first.get('ctx', {}).get('expected')} here; "
            "choose another model"
        )
    if first["type"] == "missing":
        return CheckpointError(f"{below}{field} is missing; download the model again")
    expected = _TYPES.get(first["type"]) or first["msg"].replace("Input should be", "a value that is")
    return _wrong(field, found, expected, below)


def _wrong(field: str, found: Any, expected: str, below: str = "config.json: ") -> CheckpointError:
    return CheckpointError(
        f"{below}{field} is {shown(found)}, expected {expected}; correct the field or download the model again"
    )
