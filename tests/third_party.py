"""Writes a package of somebody else's, with a plugin for a tiny architecture, as pip would install it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pio.plugin import registry
from pio.plugin.manifest import AREAS

NAME = "acorn"
CONFIG: dict[str, Any] = {
    "model_type": "acorn",
    "vocab_size": 131,
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 96,
    "tie_word_embeddings": True,
    "attention_bias": False,
}
COMPONENTS = {
    "config": "acorn_models.acorn.plugin:AcornConfig",
    "model": "acorn_models.acorn.plugin:AcornPlugin",
    "attention": "pio.layers.attention:GroupedQueryAttention",
    "mlp": "pio.layers.mlp:SwiGLU",
    "norm": "pio.layers.norm:RMSNorm",
    "rotary_embedding": "pio.layers.rotary:RotaryEmbedding",
    "kv_cache": "pio.cache.paged:PagedKVCache",
    "decoder": "pio.layers.decoder:Decoder",
}
MANIFEST: dict[str, Any] = {
    "name": NAME,
    "version": "1.2.3",
    "description": "Acorn: a tiny model of somebody else's.",
    "factory": "acorn_models.acorn.plugin:create_acorn_plugin",
    "plugin": "acorn_models.acorn.plugin:AcornPlugin",
    "model_types": ["acorn"],
    "checkpoints": ["oak/acorn"],
    "dimensions": {"hidden_size": 20, "num_hidden_layers": 2},
    "parameters": 9000,
    "memory_bytes": 1_000_000,
    "modalities": ["text"],
    "components": COMPONENTS,
}
PLUGIN = """
from typing import Any, ClassVar, Literal

from pio.cache.paged import PagedKVCache
from pio.config.decoder import DecoderConfig
from pio.layers.attention import GroupedQueryAttention
from pio.layers.decoder import Decoder, DecoderLayer
from pio.layers.embedding import Embedding
from pio.layers.head import OutputHead
from pio.layers.mlp import SwiGLU
from pio.layers.norm import RMSNorm
from pio.layers.rotary import RotaryEmbedding
from pio.plugin import TextModelPlugin


class AcornConfig(DecoderConfig, frozen=True):
    model_type: Literal["acorn"]


class AcornPlugin(TextModelPlugin):
    manifest_name: ClassVar[str] = "acorn"
    config_class: ClassVar[type[DecoderConfig]] = AcornConfig

    def build_model(self, config, source, runtime, budget):
        c, eps = config, config.rms_norm_eps
        rotary = RotaryEmbedding(source, c.rope, c.head_dim)
        embed = Embedding(source / "embed", c.vocab_size, c.hidden_size)
        norm = RMSNorm(source / "norm", c.hidden_size, eps)

        def layer(i):
            at = source / "block" / i
            sizes = dict(hidden=c.hidden_size, heads=c.num_attention_heads, kv_heads=c.num_key_value_heads)
            attention = GroupedQueryAttention(at / "attn", i, rotary, **sizes, head_dim=c.head_dim, eps=eps)
            before, after = (RMSNorm(at / name, c.hidden_size, eps) for name in ("before", "after"))
            return DecoderLayer(before, attention, after, SwiGLU(at / "mlp", c.hidden_size, c.intermediate_size))

        def make_cache(tokens):
            dtype = runtime.cache_dtype(norm.weight.dtype)
            return PagedKVCache(2, tokens, c.num_key_value_heads, c.head_dim, dtype, budget=budget)

        return Decoder(
            embed_tokens=embed,
            rotary=rotary,
            layers=[layer(i) for i in range(c.num_hidden_layers)],
            norm=norm,
            lm_head=OutputHead(source, embed, tied=True),
            workspace=source.workspace,
            make_cache=make_cache,
            max_positions=c.max_positions,
            max_batch_sequences=runtime.max_batch_sequences,
            max_batch_outputs=runtime.batch_outputs,
        )


def create_acorn_plugin(**options: Any) -> AcornPlugin:
    plugin = AcornPlugin()
    plugin.initialize(**options)
    return plugin
"""

KERNELS = """
from pio.ops.kernels import LANES, kernel, load_f32, load_part_f32, parallel_kernel, splat, store_f32, store_part_f32
from pio.ops.kernels import check, check_writable, split

from acorn_models.acorn.factor import factor


@kernel
def scale_range(x: int, first: int, last: int) -> None:
    whole = last - (last - first) % LANES
    for i in range(first, whole, LANES):
        store_f32(x + 4 * i, load_f32(x + 4 * i) * splat(factor()))
    if last > whole:
        store_part_f32(x + 4 * whole, load_part_f32(x + 4 * whole, last - whole) * splat(factor()), last - whole)


@parallel_kernel
def scale_parts(x: int, n: int, part: int, parts: int) -> None:
    scale_range(x, part * n // parts, (part + 1) * n // parts)


def scale(x):
    check("scale", "x", x)
    check_writable("scale", "x", x)
    scale_parts(x.address, x.size, split(x.size, x.device))
    return x
"""
FACTOR = """
from pio.ops.kernels import kernel


@kernel
def factor() -> float:
    return 2.0
"""
SCALED = """
from acorn_models.acorn.kernels import scale


class Scaled:
    def __init__(self, mlp):
        self.mlp = mlp

    def __call__(self, x, residual):
        self.mlp(scale(x), residual)
"""
# the same plugin, whose feed-forward blocks work on twice their input, by a kernel of the package's own
SCALING = {
    "kernels.py": KERNELS,
    "factor.py": FACTOR,
    "scaled.py": SCALED,
    "plugin.py": PLUGIN.replace(
        "from pio.plugin import", "from acorn_models.acorn.scaled import Scaled\nfrom pio.plugin import"
    ).replace(
        'SwiGLU(at / "mlp", c.hidden_size, c.intermediate_size)',
        'Scaled(SwiGLU(at / "mlp", c.hidden_size, c.intermediate_size))',
    ),
}


@contextmanager
def installed(
    site: Path, *, manifest: dict[str, Any] | None = None, plugin: str = PLUGIN, files: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """Install the package into a folder on sys.path for the length of a ``with`` block; gives the plugin's folder.

    Args:
        site: The folder.
        manifest: What stands in place of the plugin's manifest.
        plugin: What stands in place of its ``plugin.py``.
        files: More files, or such in place of others, by name.
    """
    package = site / "acorn_models"
    folder = package / NAME
    (folder / "tests").mkdir(parents=True)
    info = site / "acorn_models-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acorn-models\nVersion: 1.2.3\n", "utf-8")
    (info / "entry_points.txt").write_text(f"[pio.plugins]\n{NAME} = acorn_models.{NAME}\n", "utf-8")
    (package / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "plugin.py").write_text(plugin, "utf-8")
    (folder / "plugin_manifest.json").write_text(json.dumps(MANIFEST if manifest is None else manifest), "utf-8")
    (folder / "README.md").write_text(" ".join(path.split(":")[1] for path in COMPONENTS.values()), "utf-8")
    (folder / "tests" / "test_acorn.py").write_text("", "utf-8")
    for name, text in (files or {}).items():
        (folder / name).write_text(text, "utf-8")
    assert COMPONENTS.keys() == set(AREAS)
    sys.path.insert(0, str(site))
    registry.manifests.cache_clear()
    try:
        yield folder
    finally:
        sys.path.remove(str(site))
        for name in [name for name in sys.modules if name.split(".")[0] == "acorn_models"]:
            del sys.modules[name]
        registry.manifests.cache_clear()


def changed(changes: Mapping[str, str]) -> str:
    """Return ``plugin.py`` with other text in the place of some of its own, which stands there once."""
    plugin = PLUGIN
    for now, other in changes.items():
        assert plugin.count(now) == 1, now
        plugin = plugin.replace(now, other)
    return plugin
