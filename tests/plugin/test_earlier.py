"""Plugins of another package that were written for an earlier pio: an old call is one error that names the new one."""

from __future__ import annotations

from pathlib import Path

import pytest
from third_party import CONFIG, NAME, changed, installed
from typer.testing import CliRunner

import pio
from pio.cli.app import make_app
from pio.testing.check_plugin import check_plugin
from pio.testing.random_checkpoint import write_random_checkpoint

WORKSPACE = """workspace=Workspace(
                tokens=runtime.batch_tokens, **sizes, intermediate=c.intermediate_size, head_dim=c.head_dim,
                outputs=runtime.batch_outputs, vocab=c.vocab_size, threads=source.threads, budget=budget,
            ),"""
# The model of a plugin as the guide of an earlier version had it: a workspace of its own, activations, threads.
EARLIER = """
from typing import Any, ClassVar, Literal

from pio import ops
from pio.cache.paged import PagedKVCache
from pio.config.decoder import DecoderConfig
from pio.device import MemoryBudget
from pio.layers.attention import GroupedQueryAttention
from pio.layers.decoder import Decoder, DecoderLayer
from pio.layers.embedding import Embedding
from pio.layers.head import OutputHead
from pio.layers.linear import Linear
from pio.layers.norm import RMSNorm
from pio.layers.rotary import RotaryEmbedding
from pio.layers.room import make_room
from pio.layers.workspace import Activations, Workspace
from pio.plugin import TextModelPlugin


class AcornConfig(DecoderConfig, frozen=True):
    model_type: Literal["acorn"]


class AcornMLP:
    def __init__(self, source, hidden, width):
        self.up_proj = Linear(source / "up_proj", width, hidden)
        self.down_proj = Linear(source / "down_proj", hidden, width)

    def __call__(self, x, residual, a: Activations):
        up, _ = a.feed(28)
        self.up_proj(x, up)
        ops.silu(up, out=up, threads=self.down_proj.threads)
        self.down_proj(up, residual, add=True)


class AcornPlugin(TextModelPlugin):
    manifest_name: ClassVar[str] = "acorn"
    config_class: ClassVar[type[DecoderConfig]] = AcornConfig

    def build_model(self, config, source, runtime, budget: MemoryBudget):
        c, eps = config, config.rms_norm_eps
        embed = Embedding(source / "embed", c.vocab_size, c.hidden_size)
        norm = RMSNorm(source / "norm", c.hidden_size, eps)
        sizes = dict(hidden=c.hidden_size, heads=c.num_attention_heads, kv_heads=c.num_key_value_heads)

        def layer(i):
            at = source / "block" / i
            attention = GroupedQueryAttention(at / "attn", i, **sizes, head_dim=c.head_dim, eps=eps)
            before, after = (RMSNorm(at / name, c.hidden_size, eps) for name in ("before", "after"))
            return DecoderLayer(before, attention, after, AcornMLP(at / "mlp", c.hidden_size, c.intermediate_size))

        return Decoder(
            embed_tokens=embed,
            rotary=RotaryEmbedding(c.rope, c.head_dim),
            layers=[layer(i) for i in range(c.num_hidden_layers)],
            norm=norm,
            lm_head=OutputHead(source, embed, tied=True),
            WORKSPACE
            make_cache=lambda tokens: PagedKVCache(2, tokens, 2, c.head_dim, norm.weight.dtype, budget=budget),
            max_positions=c.max_positions,
            max_batch_sequences=runtime.max_batch_sequences,
            threads=source.threads,
        )


def create_acorn_plugin(**options: Any) -> AcornPlugin:
    plugin = AcornPlugin()
    plugin.initialize(**options)
    return plugin
""".replace("WORKSPACE", WORKSPACE)

WRAPPED = """
class Wrapped:
    def __init__(self, block):
        self.block = block

    def __call__(self, {parameters}):
        {body}


class AcornPlugin("""
MLP = 'SwiGLU(at / "mlp", c.hidden_size, c.intermediate_size)'
CACHE = "PagedKVCache(2, tokens, c.num_key_value_heads, c.head_dim, dtype, budget=budget)"


def wrapping(block: str, parameters: str, body: str) -> dict[str, str]:
    """Changes that put a block of the package's own around one of pio's."""
    by = WRAPPED.format(parameters=parameters, body=body)
    around = {"mlp": (MLP, f"Wrapped({MLP})"), "mixer": ("before, attention,", "before, Wrapped(attention),")}
    return {"class AcornPlugin(": by, **dict([around[block]])}


# What stands in the place of what in a plugin of today, and what the error says of it.
OLD: dict[str, tuple[dict[str, str], str]] = {
    "budget": (
        {"from pio.plugin import": "from pio.device import MemoryBudget\nfrom pio.plugin import"},
        "MemoryBudget is imported from pio.memory.budget",
    ),
    "activations": (
        {"from pio.plugin import": "from pio.layers.workspace import Activations\nfrom pio.plugin import"},
        "asks source.workspace.rooms",
    ),
    "make_room": (
        {"from pio.plugin import": "from pio.layers.room import make_room\nfrom pio.plugin import"},
        "asks source.workspace.rooms",
    ),
    "records": (
        {"from pio.plugin import": "from pio.layers.quantization import Records\nfrom pio.plugin import"},
        "asks source.workspace.rooms",
    ),
    "registry": (
        {"from pio.plugin import": "from pio import registry\nfrom pio.plugin import"},
        "lies in pio.plugin",
    ),
    "cache_format": (
        {"from pio.plugin import": "from pio.ops.attention import cache_format\nfrom pio.plugin import"},
        "keys.format, see pio.ops.Pages",
    ),
    "first_non_finite": (
        {"from pio.plugin import": "from pio.loading.weights import first_non_finite\nfrom pio.plugin import"},
        r"pio\.ops\.first_non_finite\(tensor\)",
    ),
    "loaded": (
        {"from pio.plugin import": "from pio.plugin.loaded import outline\nfrom pio.plugin import"},
        "outline in pio.plugin.assembly",
    ),
    "tokenizer": (
        {"from pio.plugin import": "from pio.loading.tokenizer import Tokenizer\nfrom pio.plugin import"},
        "lies in pio.text",
    ),
    "rotary": ({"RotaryEmbedding(source, ": "RotaryEmbedding("}, r"RotaryEmbedding\(source, rope, width\)"),
    "attention": ({", i, rotary, **sizes": ", i, **sizes"}, "rotary embedding behind the number of its layer"),
    "workspace": (
        {
            "workspace=source.workspace": "workspace=Workspace(tokens=8, hidden=20, intermediate=28, heads=0)",
            "from pio.plugin import": "from pio.layers.workspace import Workspace\nfrom pio.plugin import",
        },
        "source.workspace, which is there already",
    ),
    "decoder": (
        {"max_batch_outputs=runtime.batch_outputs": "threads=1, rooms=()"},
        "max_batch_outputs=runtime.batch_outputs, and neither threads nor rooms",
    ),
    "source.threads": ({"c, eps = ": "threads = source.threads; c, eps = "}, "source.device is the model's"),
    "source.held": ({"c, eps = ": "held = source.held; c, eps = "}, "source.held is source.inventory"),
    "source.exact": ({"c, eps = ": "table = source.exact('x', 1); c, eps = "}, "source.take_float32"),
    "linear.threads": (wrapping("mlp", "x, residual", "self.block.up_proj.threads"), "source.device is the model's"),
    "op": (
        wrapping("mlp", "x, residual", "from pio import ops; ops.silu(x, out=x, threads=2)"),
        "those of its first tensor's device",
    ),
    "feed-forward": (
        wrapping("mlp", "x, residual, a", "self.block(x, residual)"),
        r"Wrapped cannot be called with \(x, residual\).*source\.workspace\.rooms",
    ),
    "mixer": (
        wrapping("mixer", "x, residual, a, batch, cache", "self.block(x, residual, batch, cache)"),
        r"Wrapped cannot be called with \(x, residual, batch, cache\).*source\.workspace\.rooms",
    ),
    "inner": (
        wrapping("mixer", "x, residual, batch, cache", "self.block(x, residual, None, batch, cache)"),
        r"mixers are called with \(x, residual, batch, cache\)",
    ),
    "batch.positions": (
        wrapping("mixer", "x, residual, batch, cache", "batch.positions"),
        r"batch\.rotary_positions, int32",
    ),
    "cache": (
        {
            CACHE: "Cache()",
            "class AcornPlugin(": "class Cache:\n    block_size, num_blocks, nbytes, state_bytes = 16, 8, 0, 0\n\n"
            "    def layer(self, index): ...\n\n    def free(self): ...\n\n\nclass AcornPlugin(",
        },
        "Cache lacks .*copy_block.*pio.cache.paged.PagedCache",
    ),
    "cache's arguments": (
        {CACHE: "PagedKVCache(2, tokens, c.num_key_value_heads, c.head_dim, dtype, threads=1)"},
        "nothing takes or has threads",
    ),
    "something else": (
        {"c, eps = ": "table = source.surprise; c, eps = "},
        "surprise.*if it was written for an earlier",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with installed(tmp_path_factory.mktemp("site")):
        return write_random_checkpoint(tmp_path_factory.mktemp("model") / "acorn", CONFIG, tokenizer=False)


def verified() -> str:
    ran = CliRunner().invoke(make_app(), ["verify", NAME], prog_name="pio")
    assert ran.exit_code == 1
    return " ".join(ran.stdout.split())


@pytest.mark.parametrize("seam", OLD)
def test_an_old_call_is_one_error_that_names_the_new_one(
    tmp_path: Path, folder: Path, seam: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pio.cli import warmup

    changes, says = OLD[seam]
    monkeypatch.setattr(warmup, "tiny_config", lambda manifest: CONFIG)
    with installed(tmp_path / "site", plugin=changed(changes)):
        with pytest.raises(pio.ConfigError, match=says) as found:
            pio.load(folder)
        assert "docs/adding-a-model.md" in str(found.value) or seam == "cache"
        assert "acorn" in str(found.value) or seam in ("cache", "feed-forward", "mixer")
        told = verified()
        assert str(found.value).split("; ", 1)[1].split(" at 0x")[0] in told


def test_a_whole_plugin_of_an_earlier_version(tmp_path: Path, folder: Path) -> None:
    with installed(tmp_path / "site", plugin=EARLIER):
        with pytest.raises(pio.ConfigError, match=r"MemoryBudget is imported from pio\.memory\.budget"):
            pio.load(folder)
        assert any("pio.memory.budget" in str(finding) for finding in check_plugin(NAME))
        assert "MemoryBudget is imported from pio.memory.budget" in verified()


# How the author of that plugin gets from error to error: what is mended, and what is told next.
MENDED: list[tuple[dict[str, str], str]] = [
    ({}, "MemoryBudget is imported"),
    ({"from pio.device import": "from pio.memory.budget import"}, r"pio\.layers\.room.*workspace\.rooms"),
    ({"from pio.layers.room import make_room\n": ""}, r"'Activations'.*workspace\.rooms"),
    (
        {"import Activations, Workspace": "import Workspace", "a: Activations": "a"},
        r"RotaryEmbedding\(source, rope, width\)",
    ),
    (
        {
            "rotary=RotaryEmbedding(c.rope, c.head_dim)": "rotary=rotary",
            "sizes = dict(": "rotary = RotaryEmbedding(source, c.rope, c.head_dim)\n        sizes = dict(",
        },
        "the number of its layer",
    ),
    ({'at / "attn", i, **sizes': 'at / "attn", i, rotary, **sizes'}, "source.device is the model's"),
    ({" threads=source.threads, budget=budget,": " budget=budget,"}, "source.workspace, which is there already"),
    (
        {WORKSPACE.replace(" threads=source.threads,", ""): "workspace=source.workspace,"},
        "source.device is the model's",
    ),
    ({"threads=source.threads,\n": ""}, "max_batch_outputs=runtime.batch_outputs"),
    (
        {"max_positions=c": "max_batch_outputs=runtime.batch_outputs,\n            max_positions=c"},
        r"AcornMLP cannot be called with \(x, residual\)",
    ),
    (
        {
            "x, residual, a)": "x, residual)",
            "up, _ = a.feed(28)": "up = self.rooms(x.shape[0])",
            "self.down_proj = Linear(": "self.rooms = source.workspace.rooms('mlp', {'up': (width,)}, lambda made: made"
            "['up'])\n        self.down_proj = Linear(",
        },
        "source.device is the model's",
    ),
    ({", threads=self.down_proj.threads": ""}, ""),
]


def test_from_error_to_error_an_old_plugin_becomes_one_that_runs(tmp_path: Path) -> None:
    plugin = EARLIER
    for step, (changes, says) in enumerate(MENDED):
        for before, now in changes.items():
            assert plugin.count(before) == 1, before
            plugin = plugin.replace(before, now)
        with installed(tmp_path / str(step), plugin=plugin):
            if says:
                with pytest.raises(pio.ConfigError, match=says):
                    pio.load(write_random_checkpoint(tmp_path / f"model{step}", CONFIG, tokenizer=False))
                continue
            with pio.load(write_random_checkpoint(tmp_path / "model", CONFIG, tokenizer=False)) as model:
                assert len(model.generate([3, 100], max_new_tokens=3, ignore_eos=True).token_ids) == 3


def test_the_error_says_where(tmp_path: Path, folder: Path) -> None:
    changes, _ = OLD["op"]
    with installed(tmp_path / "site", plugin=changed(changes)) as own:
        line = 1 + [("threads=2" in text) for text in (own / "plugin.py").read_text("utf-8").splitlines()].index(True)
        with pytest.raises(
            pio.ConfigError, match=rf"^plugin acorn .*: plugin\.py:{line}, Wrapped\.__call__: TypeError"
        ):
            pio.load(folder)
        with pytest.raises(pio.ConfigError, match="threads"):
            pio.quantize(folder, tmp_path / "made") and pio.load(tmp_path / "made")


@pytest.mark.parametrize("seam", ["rotary", "source.held"])
def test_quantizing_and_random_checkpoints_say_the_same(tmp_path: Path, folder: Path, seam: str) -> None:
    changes, says = OLD[seam]
    with installed(tmp_path / "site", plugin=changed(changes)):
        with pytest.raises(pio.ConfigError, match=says):
            pio.quantize(folder, tmp_path / "made")
        assert not (tmp_path / "made").exists()
        with pytest.raises(pio.ConfigError, match=says):
            write_random_checkpoint(tmp_path / "random", CONFIG)
