"""At which sizes a GPU is checked: those of the published models, or small ones, which take no GPU's speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pio.benchmarks.gpu.published import PUBLISHED, SEEING, USUAL

FORMS: Final = ("bfloat16", "int4", "int8", "float16", "float32", "rounded", "int4_zero_point")


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts.

    Attributes:
        count: How many there are.
        chosen: To how many a token goes.
        hidden: Width of a token.
        inner: Width of an expert.
        logistic: Whether each has a score of its own.
    """

    count: int
    chosen: int
    hidden: int
    inner: int
    logistic: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """Recurrent layers.

    Attributes:
        key_heads: Of queries and keys.
        heads: Of values, and so of states.
        dim: Of keys.
        value_dim: Of values.
        width: Tokens that a convolution sees.
        layers: How many there are.
    """

    key_heads: int
    heads: int
    dim: int
    value_dim: int
    width: int
    layers: int


@dataclass(frozen=True, slots=True)
class Tower:
    """A tower that looks at pictures.

    Attributes:
        heads: Of attention, with their width.
        hidden: Width of a patch's row.
        side: Of the learned table of places.
        patch: Pixels along a side of a patch.
        grid: Patches of a picture, down and across.
        rows: Patches that go through a layer together.
    """

    heads: tuple[int, int]
    hidden: int
    side: int
    patch: int
    grid: tuple[int, int]
    rows: int


@dataclass(frozen=True, slots=True)
class Shapes:
    """Sizes.

    Attributes:
        forms: Element types and formats of matrices, the usual ones first.
        widths: Outputs and inputs of linear layers.
        table: Of an output head.
        rows: Of activations: one, few, and as many as tiles take.
        caches: Formats of caches.
        heads: Query heads, key/value heads and their width.
        latents: Heads, width of a latent, of the key that turns, of a head's key and of its value.
        lengths: Positions that are attended to.
        chunk: Tokens of a piece of a prompt.
        experts: Mixtures.
        delta: Recurrent layers.
        tower: What looks at pictures.
        repeats: How often the same is computed, for its bits.
        buffer: Bytes that are read to measure the bandwidth.
        cold: Bytes of weights that are read in turns, so that none are found in a cache.
        rounds: Of products, to measure what tensor cores do.
        launches: Of one measurement of what a launch costs.
        prompt: Rows of a prompt whose products are timed.
        models: config.json and format of each model.
        context: Tokens of a model's prompt, of its answer.
        peers: Which models are also run by other libraries.
        timed: Whether sizes are so large that times say something.
        layers: Of a model whose logits are compared with the CPU's.
        seeing: config.json of a model with a tower, whose embeddings are compared.
        picture: Its height and width.
    """

    forms: tuple[str, ...]
    widths: tuple[tuple[int, int], ...]
    table: tuple[int, int]
    rows: tuple[int, ...]
    caches: tuple[str, ...]
    heads: tuple[tuple[int, int, int], ...]
    latents: tuple[int, int, int, int, int]
    lengths: tuple[int, ...]
    chunk: int
    experts: tuple[Experts, ...]
    delta: Delta
    tower: Tower
    repeats: int
    buffer: int
    cold: int
    rounds: int
    launches: int
    prompt: int
    context: tuple[int, int]
    layers: int
    models: Mapping[str, tuple[dict[str, Any], str | None]] = field(hash=False)
    seeing: dict[str, Any] = field(hash=False)
    picture: tuple[int, int]
    peers: tuple[str, ...] = ()
    timed: bool = True


REAL: Final = Shapes(
    forms=FORMS,
    widths=(
        *((2048, 1024), (1024, 2048), (3072, 1024), (1024, 3072)),
        *((4096, 2560), (2560, 4096), (9728, 2560), (2560, 9728)),
        *((4096, 2048), (2048, 4096), (12_288, 2048), (8192, 2048)),
        *((768, 2048), (5120, 768), (2048, 5120), (10_240, 2048), (2048, 10_240), (2048, 1536)),
    ),
    table=(151_936, 1024),
    rows=(1, 9, 70),
    caches=("float16", "int8", "bfloat16", "float32"),
    heads=((32, 8, 128), (32, 4, 128), (16, 2, 256)),
    latents=(20, 512, 64, 192, 256),
    lengths=(1024, 32_768),
    chunk=256,
    experts=(Experts(128, 8, 2048, 768), Experts(512, 10, 2048, 512), Experts(64, 4, 2048, 1536, logistic=True)),
    delta=Delta(16, 32, 128, 128, 4, 36),
    tower=Tower((16, 64), 1024, 48, 16, (28, 38), 256),
    repeats=100,
    buffer=4 << 30,
    cold=512 << 20,
    rounds=1 << 15,
    launches=2000,
    prompt=2048,
    context=(1024, 128),
    layers=4,
    models={name: (raw, USUAL[name]) for name, raw in PUBLISHED.items()},
    seeing=SEEING,
    picture=(448, 608),
    peers=("Qwen3-0.6B", "Qwen3-4B"),
)

_TINY: Final[dict[str, Any]] = {
    "model_type": "qwen3",
    "vocab_size": 131,
    "hidden_size": 72,
    "intermediate_size": 104,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}

_SEEING: Final[dict[str, Any]] = {
    "model_type": "qwen3_vl",
    "image_token_id": 120,
    "video_token_id": 121,
    "vision_start_token_id": 122,
    "vision_end_token_id": 123,
    "tie_word_embeddings": True,
    "text_config": {**_TINY, "model_type": "qwen3_vl_text", "rope_scaling": {"mrope_section": [4, 4, 4]}},
    "vision_config": {
        "deepstack_visual_indexes": [0],
        "depth": 2,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 48,
        "in_channels": 3,
        "intermediate_size": 80,
        "num_heads": 2,
        "num_position_embeddings": 25,
        "out_hidden_size": 72,
        "patch_size": 64,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}

SMALL: Final = Shapes(
    forms=("bfloat16", "int4"),
    widths=((37, 72),),
    table=(131, 72),
    rows=(1, 35),
    caches=("float16", "int8"),
    heads=((4, 2, 24),),
    latents=(3, 40, 8, 24, 16),
    lengths=(300,),
    chunk=3,
    experts=(Experts(5, 2, 72, 40), Experts(4, 2, 40, 24, logistic=True)),
    delta=Delta(2, 4, 16, 24, 3, 2),
    tower=Tower((2, 24), 48, 5, 3, (6, 4), 13),
    repeats=2,
    buffer=1 << 16,
    cold=1 << 12,
    rounds=2,
    launches=3,
    prompt=65,
    context=(5, 3),
    layers=1,
    models={"tiny": (_TINY, None)},
    seeing=_SEEING,
    picture=(280, 300),
    timed=False,
)
