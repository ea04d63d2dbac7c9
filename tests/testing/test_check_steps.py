"""Blocks of a third party that are wrong in a step, each in its own way: refused by name, or found."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Any

import pytest
from third_party import CONFIG

import pio
from pio import ops
from pio.cache.batch import Batch
from pio.layers.decoder import Decoder
from pio.memory.allocation import allocated_bytes
from pio.models.qwen3_0_6b.plugin import Qwen3_0_6BPlugin
from pio.tensor import Tensor
from pio.testing.check_steps import check_steps
from pio.testing.random_checkpoint import write_random_checkpoint

SMALL = {**CONFIG, "model_type": "qwen3"}


class Block:
    """SwiGLU; derived classes do something else in its middle."""

    def __init__(self, mlp: Any) -> None:
        self.mlp, self.made = mlp, Tensor.empty((3, 600, 28))
        self.calls = 0

    def __call__(self, x: Any, residual: Any) -> None:
        gate, up = (made[: x.shape[0]] for made in self.made[1:])
        self.mlp.gate_proj(x, gate)
        self.mlp.up_proj(x, up)
        self.mlp.down_proj(self.product(gate, up), residual, add=True)

    def product(self, gate: Any, up: Any) -> Any:
        return ops.swiglu(gate, up, out=self.made[0, : gate.shape[0]])


class Allocates(Block):
    def product(self, gate: Any, up: Any) -> Any:
        return ops.swiglu(gate, up)


class Reads(Block):
    def product(self, gate: Any, up: Any) -> Any:
        return ops.silu(gate, out=gate) if gate[0, 0].item() > 0 else super().product(gate, up)


class Writes(Block):
    def product(self, gate: Any, up: Any) -> Any:
        out = super().product(gate, up)
        out[:, :1].fill_(0.5)
        return out


class Copies(Block):
    """Right: a copy is an operation, which is recorded."""

    def product(self, gate: Any, up: Any) -> Any:
        return self.made[0, : gate.shape[0]].copy_(ops.swiglu(gate, up, out=gate))


class Watches(Block):
    """Right: what Python does between operations is a host call, which is part of the step."""

    def product(self, gate: Any, up: Any) -> Any:
        ops.host_call(lambda: self.watch(gate))
        return super().product(gate, up)

    def watch(self, gate: Any) -> None:
        self.calls += 1
        gate.copy_(ops.silu(gate)) if gate[0, 0].item() > 0 else gate.fill_(0.5)


class Counts(Block):
    def product(self, gate: Any, up: Any) -> Any:
        self.calls += 1
        out = super().product(gate, up)
        return ops.silu(out, out=out) if self.calls % 3 == 0 else out


class Peeks(Block):
    def product(self, gate: Any, up: Any) -> Any:
        out = super().product(gate, up)
        first = ctypes.c_float.from_address(gate.address).value
        return ops.silu(out, out=out) if first > 0 else out


def load(folder: Path, block: type[Block]) -> Qwen3_0_6BPlugin:
    class Plugin(Qwen3_0_6BPlugin):
        def build_model(self, config: Any, source: Any, runtime: Any, budget: Any) -> Decoder:
            model = super().build_model(config, source, runtime, budget)
            for layer in model.layers:
                layer.mlp = block(layer.mlp)
            return model

    plugin = Plugin()
    plugin.initialize(folder, progress=False, context_length=64, prefill_chunk=16, max_batch_sequences=2)
    return plugin.load_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("models") / "small", SMALL, tokenizer=False)


@pytest.mark.parametrize("block", [Block, Copies, Watches])
def test_a_sound_block_complies(folder: Path, block: type[Block]) -> None:
    with load(folder, block) as model:
        assert check_steps(model) == []
        again = [model.generate([3, 4, 5], temperature=0.0, max_new_tokens=9, ignore_eos=True) for _ in range(3)]
        assert len({tuple(answer.token_ids) for answer in again}) == 1


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (Allocates, ["ops.swiglu", "Allocates.product", "out="]),
        (Reads, ["Tensor.item", "Reads.product", "pio.ops"]),
        (Writes, ["Tensor.fill_", "Writes.product", "when the block is built"]),
    ],
)
def test_what_could_not_run_again_is_refused(folder: Path, block: type[Block], words: list[str]) -> None:
    """While the model loads; where nothing is compiled, and so nothing is run to load it, by the first request."""
    with pytest.raises(pio.RecordingError) as raised, load(folder, block) as model:
        model.generate([3, 4], max_new_tokens=2)
    assert [word for word in words if word not in str(raised.value)] == []


@pytest.mark.parametrize("block", [Counts, Peeks])
def test_python_between_operations_is_found(folder: Path, block: type[Block]) -> None:
    with load(folder, block) as model:
        (finding,) = check_steps(model)
        assert "when it runs again" in finding and "pio.ops" in finding


def test_a_finaliser_may_clean_up_a_model_in_the_middle_of_a_step(folder: Path) -> None:
    gc.collect()
    before, other = allocated_bytes(), load(folder, Block)
    with ops.recording():
        assert other.cleanup() is True
    del other
    gc.collect()
    assert allocated_bytes() == before


def test_a_step_cannot_run_again_behind_cleanup(folder: Path) -> None:
    model = load(folder, Block)
    decoder, cache, batch = model.loaded.model, model.loaded.cache, Batch(3, 1, 1, 1)
    batch.add([5, 6, 7], 0, [0], 1)
    with ops.recording() as program:
        logits = decoder.hidden_states(batch, cache)
    program.run()
    model.cleanup()
    with pytest.raises(pio.RecordingError, match=r"was freed.*cleanup"):
        program.run()
    with pytest.raises(pio.TensorError, match="freed"):
        logits.tolist()
    with pytest.raises(pio.PioError, match="freed"):
        decoder.forward(batch, cache)
