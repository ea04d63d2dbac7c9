"""Recurrent layers of a third party that are wrong about tentative tokens, each in its own way: refused, or found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pio
from pio import ops
from pio.layers.decoder import Decoder
from pio.models.qwen3_coder_next.gated_delta_net import GatedDeltaNet
from pio.models.qwen3_coder_next.plugin import Qwen3CoderNextPlugin
from pio.ops.slices import Slices
from pio.testing.check_commits import check_commits
from pio.testing.random_checkpoint import write_random_checkpoint

SMALL: dict[str, Any] = {
    "model_type": "qwen3_next",
    "vocab_size": 67,
    "hidden_size": 40,
    "intermediate_size": 72,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 28,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_conv_kernel_dim": 3,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 20,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 160,
    "rope_theta": 10000.0,
    "torch_dtype": "float32",
}


class Cache:
    """What a layer takes for its cache: another one, seen through what is wrong with the layer."""

    def __init__(self, cache: Any, change: Any) -> None:
        self.cache, self.change = cache, change

    def layer(self, index: int) -> Any:
        return self.change(self.cache, *self.cache.layer(index))


def takes_no_window(_: Any, inputs: Any, state: Any, window: Any) -> Any:
    return inputs, state, None


def takes_that_of_the_first_layer(cache: Any, inputs: Any, state: Any, window: Any) -> Any:
    return inputs, state, cache.layer(0)[2]


class Net:
    """A recurrent layer that is right, but for what it takes from the cache."""

    change: Any = staticmethod(lambda _, *kept: kept)

    def __init__(self, net: GatedDeltaNet) -> None:
        self.net = net

    def __call__(self, x: Any, residual: Any, batch: Any, cache: Any) -> None:
        self.net(x, residual, batch, Cache(cache, self.change))


class WithoutWindow(Net):
    change = staticmethod(takes_no_window)


class OfAnotherLayer(Net):
    change = staticmethod(takes_that_of_the_first_layer)


class Moves(Net):
    """It makes a batch of its own, in a host call, and forgets in it that tokens are tentative."""

    def __init__(self, net: GatedDeltaNet) -> None:
        super().__init__(net)
        self.own = Slices(2, 0)

    def __call__(self, x: Any, residual: Any, batch: Any, cache: Any) -> None:
        ops.host_call(lambda: self.refill(batch))
        self.net(x, residual, self.own, cache)

    def refill(self, batch: Any) -> None:
        self.own.begin()
        for s in range(batch.num_sequences):
            tokens = batch.starts[s + 1].item() - batch.starts[s].item()
            self.own.append(tokens, batch.past[s].item(), [], batch.slots[s].item())


def load(folder: Path, net: type[Net], **options: Any) -> Any:
    class Plugin(Qwen3CoderNextPlugin):
        def build_model(self, config: Any, source: Any, runtime: Any, budget: Any) -> Decoder:
            model = super().build_model(config, source, runtime, budget)
            for layer in model.layers:
                if isinstance(layer.mixer, GatedDeltaNet):
                    layer.mixer = net(layer.mixer)
            return model

    plugin = Plugin()
    plugin.initialize(folder, progress=False, context_length=64, **{"max_batch_sequences": 2, **options})
    return plugin.load_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("models") / "small", SMALL, tokenizer=False)


@pytest.mark.parametrize("sequences", [1, 2])
def test_a_sound_layer_complies(folder: Path, sequences: int) -> None:
    with load(folder, Net, max_batch_sequences=sequences) as model:
        ran = []
        forward = model.loaded.model.forward
        model.loaded.model.forward = lambda batch, cache: ran.append(len(batch.tentative)) or forward(batch, cache)
        assert check_commits(model) == []
        assert sum(ran) == 4 and len(ran) > 4


@pytest.mark.parametrize("net", [OfAnotherLayer, Moves])
def test_what_moves_states_or_keeps_too_little_is_found(folder: Path, net: type[Net]) -> None:
    with load(folder, net) as model:
        (finding,) = check_commits(model)
        assert "logits differ from those of decoding token by token" in finding and "tentative_tokens" in finding


def test_a_layer_that_keeps_nothing_is_refused(folder: Path) -> None:
    """While the model loads; where nothing is compiled, and so nothing is run to load it, by the check."""
    with (
        pytest.raises(pio.TensorError, match=r"tentative sequences, .* give window="),
        load(folder, WithoutWindow) as model,
    ):
        check_commits(model)


def test_nothing_is_asked_where_there_are_no_states() -> None:
    with pio.load("demo") as model:
        assert check_commits(model) == []
