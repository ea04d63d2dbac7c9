"""Runtime options: what the host program decides, in named profiles, checked and changed as a whole."""

from __future__ import annotations

import os
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, Final, Literal, Self, cast

from pydantic import ConfigDict, Field, ValidationError, field_validator

from pio import dtypes
from pio.config.described_fields import DescribedFields
from pio.config.sizes import parse_size
from pio.device import CUDA, CUDA_KERNELS
from pio.dtypes import DType
from pio.errors import ConfigError
from pio.loading.address import begins_addresses
from pio.loading.quantization_config import Format, Policy

Profile = Literal["balanced", "performance", "memory_efficient", "accuracy"]
KVCacheDType = Literal["auto", "float32", "float16", "bfloat16", "int8"]
DENSE_DRAFT = 15  # tokens of a draft: so many cost a dense model little more than one
EXPERTS_DRAFT = 63  # a mixture of experts gains by long ones alone, whose tokens share experts

PROFILES: dict[str, dict[str, Any]] = {
    "balanced": {},
    "performance": {
        "context_length": 16384,
        "prefill_chunk": 512,
        "max_batch_sequences": 32,
        "activation_dtype": "bfloat16",
    },
    "memory_efficient": {
        "context_length": 2048,
        "prefill_chunk": 64,
        "max_batch_sequences": 4,
        "kv_cache_dtype": "float16",
        "prefix_cache": 256 << 20,
    },
    "accuracy": {"kv_cache_dtype": "float32"},
}


DEFAULT_STATES = 1 << 30  # bytes of kept states
_SWITCH: Final = {"on": True, "off": False}

# How pydantic says it, and how pio does.
_WORDS = (
    ("Input should be", "expected"),
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
)


class RuntimeConfig(DescribedFields, frozen=True):
    """How a model runs on this machine; the same for every request.

    A value is never changed: ``updated`` returns a new, checked configuration. An option that is None is as if it were
    not given.
    """

    model_config = ConfigDict(extra="forbid", validate_default=True)

    profile: Profile = "balanced"
    """Named preset that gives the defaults of the other fields: balanced; performance (longer context, larger
    steps, inputs of bfloat16 layers rounded); memory_efficient (small cache and buffers); accuracy (keys and values
    kept in float32)."""

    device: str = "auto"
    """Where to run: cpu, cuda (the first NVIDIA GPU), cuda:1 and so on, which take
    ``pip install "numba-cuda[cu13]>=0.30,<0.31"``; auto takes the first GPU where there is one that can be used and the
    model fits, and else, or with ``threads``, the CPU; a line of the log says why."""

    cuda_kernels: tuple[str, ...] = ("all",)
    """Which kernels run on a GPU: all; none; the names of those that do (norm, rope); or with a minus of those that do
    not (-norm). What the others do runs on the CPU then, over copies: slow, and right where a kernel is suspected. A
    text is split at commas."""

    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Convert the weights when loading; None keeps them as stored, mapped from the file. What corrects a
    router's choice and what a recurrence forgets by stay exact."""

    mmap: bool = True
    """Map the weights from their files, which is quick and shares memory; False reads them into memory of the process's
    own. A file that is cut short while it is mapped ends the process, so read what others may overwrite."""

    quantize: Format | None = None
    """Quantize the weights' matrices when loading, in groups of 32: int8, int4, or int4 with a minimum for each group;
    None keeps them as stored, mapped from the file. ``pio quantize`` stores them so once and for all."""

    quantize_policy: Policy = "balanced"
    """Which matrices keep more bits: balanced stores the embedding and the output head as int8 when others are int4;
    uniform makes no difference."""

    threads: int | None = Field(default=None, ge=1, le=1024)
    """Over how many threads to split, at most one for each core that this process may use; None is all of them."""

    memory_limit: int | None = Field(default=None, ge=1)
    """Bytes that weights, cache, buffers and the results of ``logits`` may take together, as a number or a text such as
    "4GB" or "512MiB"; more is refused before it is allocated."""

    gpu_memory: int | None = Field(default=None, ge=1)
    """Bytes that weights, cache and activations may take on a GPU, as a number or a text such as "10GiB"; None is what
    is free there. Weights of layers that do not fit stay in this machine's memory and are copied there in each step,
    while others compute; answers are the same to the bit."""

    offloaded_experts: Literal["auto", "copy", "compute"] = "auto"
    """What becomes of experts that do not fit on a GPU: copy has them copied as other weights are, compute has the CPU
    compute them. auto measures both while loading, and takes what is faster for one token; what is computed by the CPU
    has last bits of its own."""

    context_length: int = Field(default=8192, ge=1, le=1 << 30)
    """Tokens of prompt and answer together. A default beyond the model's own context is cut to it, and asking for more
    is an error."""

    cache_tokens: int | None = Field(default=None, ge=1, le=1 << 34)
    """Tokens that all running requests share in the cache; None is context_length."""

    kv_cache_dtype: KVCacheDType = "auto"
    """Element type of cached keys and values; auto is float32 for float32 weights, int8 for quantized ones, and float16
    for others."""

    activation_dtype: Literal["float32", "bfloat16"] = "float32"
    """What the inputs of layers with bfloat16 weights are rounded to before they are multiplied. bfloat16 multiplies
    prompts about twice as fast where the processor has an instruction for it (AVX-512 BF16), and moves logits by up to
    1 % (relative L2; 0.2 % for the demo model). Sums stay float32, and layers with other weights (float32, float16,
    quantized) are not touched."""

    prefill_chunk: int = Field(default=256, ge=1, le=65536)
    """Prompt tokens of a step; fewer let running answers go on sooner, more prefill faster."""

    max_batch_sequences: int = Field(default=16, ge=1, le=4096)
    """Requests that run at once; others wait their turn."""

    literal_messages: bool = False
    """Control tokens that are written in messages, tools, prefixes and suffixes stay text; only those that the chat
    template writes itself steer the model."""

    max_pixels: int | None = Field(default=None, ge=1, le=1 << 32)
    """Pixels in which the model sees a picture, at most; larger ones are made smaller. None is what the folder says,
    16,777,216 for Qwen3-VL, but for a picture no more than a quarter of ``context_length`` in tokens: 2,097,152 by
    default. For a video it is the pixels of all its frames together."""

    media_cache: int = Field(default=512 << 20, ge=0)
    """Bytes of embeddings of pictures and videos that are kept, so that a second question about one does not encode it
    again; a number or a text such as "1GiB". 2048 x 2048 pixels take 134 MB."""

    background: tuple[int, int, int] | None = None
    """Colour, as red, green and blue from 0 to 255, on which transparent pictures are put; None is what transformers
    does: it leaves out the transparency of files, and puts pictures of PIL on white."""

    allow_remote: tuple[str, ...] = ()
    """Beginnings of addresses, such as "https://example.com/", from which pictures and videos may be fetched; others
    are refused."""

    prefix_cache: bool | int = True
    """Keep what the model has computed of prompts and answers, in room of the cache that nobody else needs, and go on
    from there where another prompt begins with the same tokens. The answers are the same. Models with recurrent layers
    (Qwen3-Coder-Next) keep states beside it, and how many bytes of them may be given, as a number or a text such as
    "4GiB"; True is 1 GiB. Other models refuse a number. "on" and "off" are True and False."""

    prefix_cache_path: str | None = None
    """A folder in which beginnings of prompts are kept beyond the end of the process, for all processes of this user
    that load the same model in the same way; it is made private. None keeps nothing on disk."""

    prefix_cache_disk: int = Field(default=10 << 30, ge=1)
    """Bytes that the files in ``prefix_cache_path`` may take, a number or a text such as "10GiB"; what was not used for
    longest goes first."""

    speculation: Literal["auto", "off"] = "auto"
    """Compute tokens that are likely to come next together with the one that is certain, where that is faster by
    measured times: those that stood behind the same tokens in the prompt, the answer or earlier ones. Answers are the
    same."""

    max_draft_tokens: int | None = Field(default=None, ge=1, le=255)
    """How many of them at once, at most. None is 15, and 63 for mixtures of experts; each takes room for a row of
    logits where there are more than 15."""

    progress: bool | None = None
    """Show a progress bar while loading or compiling; None shows it on a terminal when it takes over a second."""

    @field_validator("dtype", "kv_cache_dtype", "activation_dtype", mode="before")
    @classmethod
    def _name(cls, value: Any) -> Any:
        return dtypes.full_name(value) if isinstance(value, (DType, str)) else value

    @field_validator("device", mode="after")
    @classmethod
    def _device(cls, value: str) -> str:
        if value not in ("auto", "cpu") and CUDA.fullmatch(value) is None:
            raise ValueError("expected auto, cpu, cuda or a GPU by its number, such as cuda:1")
        return "cuda:0" if value == "cuda" else value

    @field_validator("cuda_kernels", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("cuda_kernels", mode="after")
    @classmethod
    def _kernels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value in (("all",), ("none",)):
            return value
        for name in value:
            if name.removeprefix("-") not in CUDA_KERNELS:
                near = get_close_matches(name.removeprefix("-"), CUDA_KERNELS, 1)
                hint = f"did you mean {near[0]}" if near else f"there are {', '.join(map(repr, CUDA_KERNELS))}"
                raise ValueError(f"expected all or none alone, or names of kernels, and {name!r} is none; {hint}")
        if len({name.startswith("-") for name in value}) != 1:
            raise ValueError("expected names of kernels that run on a GPU, or with a minus of those that do not")
        return value

    @field_validator("background", mode="after")
    @classmethod
    def _colour(cls, value: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if value is not None and not all(0 <= part <= 255 for part in value):
            raise ValueError("expected red, green and blue from 0 to 255, such as (255, 255, 255)")
        return value

    @field_validator("allow_remote", mode="before")
    @classmethod
    def _prefixes(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("allow_remote", mode="after")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in value:
            if not begins_addresses(prefix):
                raise ValueError("expected what addresses of http or https begin with, such as 'https://example.com/'")
        return value

    @field_validator("prefix_cache", mode="before")
    @classmethod
    def _switch_or_bytes(cls, value: Any) -> Any:
        found = value
        if isinstance(value, str):
            with suppress(ValueError):
                found = _SWITCH[value] if value in _SWITCH else parse_size(value)
        if isinstance(found, bool) or (isinstance(found, int) and found > 0):
            return found
        raise ValueError("expected 'on' or True, 'off' or False, or bytes as a number or a text such as '4GiB'")

    @field_validator("prefix_cache_path", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        if value == "":
            raise ValueError("expected the name of a folder")
        return os.fsdecode(cast("os.PathLike[str]", value)) if isinstance(value, os.PathLike) else value

    @field_validator("memory_limit", "gpu_memory", "media_cache", "prefix_cache_disk", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        return parse_size(value) if isinstance(value, str) else value

    @property
    def batch_tokens(self) -> int:
        """Tokens of the largest step: a chunk of a prompt beside every running request."""
        return self.prefill_chunk + self.max_batch_sequences

    @property
    def batch_outputs(self) -> int:
        """Rows of logits of the largest step: one for each running request, or for each token of one with a draft."""
        draft = 0 if self.speculation == "off" else self.max_draft_tokens or DENSE_DRAFT
        return max(16, self.max_batch_sequences, 1 + draft)

    @property
    def cuda_kernels_off(self) -> frozenset[str]:
        """The kernels that are switched off on a GPU."""
        names = frozenset(name.removeprefix("-") for name in self.cuda_kernels)
        if "all" in names:
            return frozenset()
        return names if self.cuda_kernels[0].startswith("-") else frozenset(CUDA_KERNELS) - names

    def state_slots(self, nbytes: int, blocks: int) -> int:
        """Return for how many sequences recurrent layers have states: those that run, and those that are kept.

        Args:
            nbytes: Bytes of the states of a sequence.
            blocks: Of the cache; behind each of them states may be kept.
        """
        kept = DEFAULT_STATES if self.prefix_cache is True else int(self.prefix_cache)
        return self.max_batch_sequences + (min(kept // nbytes, blocks) if nbytes else 0)

    def cache_dtype(self, weights: DType, *, packed: bool = False) -> DType:
        """Return the element type of cached keys and values for weights of that type, or for packed ones."""
        if self.kv_cache_dtype != "auto":
            return dtypes.dtype(self.kv_cache_dtype)
        if packed:
            return dtypes.int8
        return dtypes.float32 if weights is dtypes.float32 else dtypes.float16

    @classmethod
    def from_options(cls, **options: Any) -> Self:
        """Put a configuration together from a profile and single options, which win.

        Raises:
            ConfigError: An option is unknown or its value cannot be used; the message names it.
        """
        unknown = [name for name in options if name not in cls.model_fields]
        if unknown:
            near = get_close_matches(unknown[0], cls.model_fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"known options are {', '.join(cls.model_fields)}"
            raise ConfigError(f"unknown option {unknown[0]!r}; {hint}")
        chosen = {name: value for name, value in options.items() if value is not None}
        preset = PROFILES.get(str(chosen.get("profile", "balanced")), {})
        try:
            config = cls(**{**preset, **chosen})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            expected = first["msg"].removeprefix("Value error, ")
            for theirs, ours in _WORDS:
                expected = expected.replace(theirs, ours)
            raise ConfigError(f"{field} is {str(first.get('input'))[:80]!r}: {expected}") from None
        config.model_fields_set.intersection_update(chosen)  # what a profile sets is a default
        return config

    def updated(self, **options: Any) -> Self:
        """Return this configuration with some options changed; a new profile brings its own presets, None a default.

        Without ``quantize``, ``quantize_policy`` goes too, without ``prefix_cache_path`` ``prefix_cache_disk``, with
        ``speculation="off"`` ``max_draft_tokens``, with ``device="cpu"`` all options of GPUs, and with a GPU
        ``threads``.

        Raises:
            ConfigError: An option is unknown or its value cannot be used; the message names it.
        """
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        if options.get("quantize", "kept") is None:
            kept.pop("quantize_policy", None)  # which says nothing without it
        if options.get("prefix_cache_path", "kept") is None:
            kept.pop("prefix_cache_disk", None)
        device = options.get("device", "auto")
        if device != "auto":
            for name in ("cuda_kernels", "gpu_memory", "offloaded_experts") if device == "cpu" else ("threads",):
                kept.pop(name, None)  # which say nothing there
        if options.get("speculation") == "off":
            kept.pop("max_draft_tokens", None)
        return self.from_options(**{**kept, **options})
