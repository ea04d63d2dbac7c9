"""Memory: what is promised, what is counted, and that all of it comes back."""

import gc
import json
import os
import subprocess
import sys

import pytest

import pio
from pio import machine, ops
from pio.benchmarks.random_model import RandomWeights
from pio.layers.quantization import Quantization
from pio.loading.safetensors import write_safetensors
from pio.memory.allocation import allocated_bytes
from pio.models.qwen3_0_6b.plugin import Qwen3_0_6BPlugin
from pio.plugin.assembly import outline


def test_cleanup_gives_every_byte_back():
    with pio.load("demo") as model:  # whatever is made once a process is made now
        model.generate("def f", max_new_tokens=3)
    del model
    gc.collect()
    before = allocated_bytes()
    with pio.load("demo") as model:
        model.generate("def f", max_new_tokens=3)
        held = sum(model.metadata.memory.values()) - model.metadata.memory["weights"]
        held -= model.loaded.manager.speculation.nbytes  # texts, which come with answers
        assert allocated_bytes() - before >= held
    assert not model.is_loaded
    assert sum(model.metadata.memory.values()) == 0
    gc.collect()
    assert allocated_bytes() == before


def test_the_limit_holds_before_anything_is_allocated():
    with pio.load("demo") as model:
        needed = sum(model.metadata.memory.values())
    before = allocated_bytes()
    with pytest.raises(pio.OutOfMemoryError, match="memory_limit"):
        pio.load("demo", memory_limit=needed - 1_000_000)
    gc.collect()
    assert allocated_bytes() == before
    with pio.load("demo", memory_limit=needed + 1_000_000) as model:
        assert model.generate("def f", max_new_tokens=2).token_ids


def test_the_limit_counts_every_buffer():
    with pio.load("demo") as model:
        needed = sum(model.metadata.memory.values())
    with pytest.raises(pio.OutOfMemoryError, match="the sampler's scratch"):
        pio.load("demo", memory_limit=needed - 1)
    with pio.load("demo", memory_limit=needed) as model:
        assert model.generate("def f", max_new_tokens=2).token_ids


def test_logits_count_as_long_as_they_live():
    with pio.load("demo") as model:
        memory, row = model.metadata.memory, 4 * model.metadata.vocab_size
        scratch = ops.attention_scratch(model.loaded.config.head_dim, model.loaded.model.device).nbytes
        assert memory["buffers"] > scratch + row * model.loaded.model.max_batch_outputs
    with pio.load("demo", memory_limit=sum(memory.values()) + 12 * row) as model:
        with pytest.raises(
            pio.OutOfMemoryError, match=rf"the logits of 13 tokens .*\({13 * row} bytes\) needed.*memory_limit"
        ):
            model.logits(range(20, 33))
        kept = model.logits(range(20, 30))
        with pytest.raises(pio.OutOfMemoryError, match="the logits of 3 tokens"):
            model.logits(range(3))
        del kept
        gc.collect()
        assert model.logits(range(20, 32)).shape[0] == 12


def test_logits_beyond_the_machine_are_refused(monkeypatch):
    with pio.load("demo") as model:
        monkeypatch.setattr(machine, "available_memory", lambda: 8 * 4 * 4096)
        with pytest.raises(pio.OutOfMemoryError, match=r"logits of 9 tokens take .* give a shorter prompt"):
            model.logits(range(9))
        assert model.logits(range(8)).shape == (8, 4096)


def test_converted_weights_count():
    """What was converted is held once, and refused before anything is converted."""
    options = {"dtype": "float32", "kv_cache_dtype": "float16"}
    with pio.load("demo", **options) as model:
        memory = model.metadata.memory
        table = model.loaded.model.embed_tokens.weight
        assert table.dtype is pio.float32
    with pytest.raises(pio.OutOfMemoryError, match="the weights as float32"):
        pio.load("demo", **options, memory_limit=memory["weights"] - 1)
    with pytest.raises(pio.OutOfMemoryError, match="the sampler's scratch"):
        pio.load("demo", **options, memory_limit=sum(memory.values()) - 1)
    with pio.load("demo", **options, memory_limit=sum(memory.values())) as model:
        assert model.generate("def f", max_new_tokens=2).token_ids


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_quantized_weights_count_before_the_first_is_packed(form, monkeypatch):
    with pio.load("demo", quantize=form) as model:
        memory = model.metadata.memory
    before = allocated_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Quantization, "pack", lambda *_: pytest.fail("packed"))
        with pytest.raises(pio.OutOfMemoryError, match=f"the weights with quantize='{form}': .* needed.*memory_limit"):
            pio.load("demo", quantize=form, memory_limit=memory["weights"] - 1)
        patch.setattr(machine, "available_memory", lambda: memory["weights"] // 2)
        with pytest.raises(pio.OutOfMemoryError, match=f"the weights with quantize='{form}' take .* free; choose"):
            pio.load("demo", quantize=form)
    gc.collect()
    assert allocated_bytes() == before
    with pytest.raises(pio.OutOfMemoryError, match="the sampler's scratch"):
        pio.load("demo", quantize=form, memory_limit=sum(memory.values()) - 1)
    with pio.load("demo", quantize=form, memory_limit=sum(memory.values())) as model:
        assert model.generate("def f", max_new_tokens=2).token_ids


def test_rounded_inputs_count():
    """The rows of a step at the width of the widest layer, two bytes a number."""
    with pio.load("demo", threads=1) as model:
        plain, config = model.metadata.memory, model.loaded.config
    options = {"threads": 1, "activation_dtype": "bfloat16"}
    with pio.load("demo", **options) as model:
        memory, rows = model.metadata.memory, model.loaded.model.max_batch_tokens
        activations = model.loaded.model.workspace.nbytes
    widest = max(config.hidden_size, config.intermediate_size, config.num_attention_heads * config.head_dim)
    assert widest % 32 == 0 and memory == {**plain, "buffers": plain["buffers"] + 2 * rows * widest}
    with pytest.raises(pio.OutOfMemoryError, match="the sampler's scratch"):
        pio.load("demo", **options, memory_limit=sum(memory.values()) - 1)
    with pytest.raises(pio.OutOfMemoryError, match="the activations"):
        pio.load("demo", **options, memory_limit=memory["weights"] + activations - 1)
    with pio.load("demo", **options, memory_limit=sum(memory.values())) as model:
        assert model.generate("def f", max_new_tokens=2).token_ids


# 33 MB of table and 36 MB a layer
SHAPE = {
    "model_type": "qwen3",
    "vocab_size": 16_390,
    "hidden_size": 1024,
    "intermediate_size": 5120,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "dtype": "bfloat16",
}
QUANTIZED_PEAK = """
import json, pathlib, sys, pio

def most():
    return int(pathlib.Path("/proc/self/status").read_text("utf-8").split("VmHWM:")[1].split()[0]) * 1024

def load(name):
    with pio.load(name, quantize="int4", context_length=64, prefill_chunk=8, max_batch_sequences=1) as model:
        model.generate([1, 2, 3], max_new_tokens=3, ignore_eos=True)
        memory = model.metadata.memory
        return memory["weights"], memory["cache"] + memory["buffers"]

load("demo")
before = most()
pio.quantize(sys.argv[1], sys.argv[2])
quantized = most() - before
weights, rest = load(sys.argv[1])
print(json.dumps([quantized, most() - before, weights, rest]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_quantizing_takes_little_more_than_its_result(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SHAPE), "utf-8")
    random, plugin = RandomWeights(pio.bfloat16), Qwen3_0_6BPlugin()
    found = outline(plugin.build_model, plugin.config_class.from_checkpoint(SHAPE), random)
    tensors = {name: random.take(name, shape) for name, (shape, _) in found.matrices.items()}
    tensors.update({name: random.take(name, (size // 2,)) for name, size in found.others.items()})
    write_safetensors(folder / "model.safetensors", tensors)
    original, largest = sum(t.nbytes for t in tensors.values()), max(t.nbytes for t in tensors.values())
    assert 100e6 < original < 120e6
    command = [sys.executable, "-c", QUANTIZED_PEAK, str(folder), str(tmp_path / "made")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    to_folder, on_the_fly, weights, rest = json.loads(run.stdout)
    assert to_folder < 1.6 * largest + 8e6  # one tensor, as it was and packed
    assert weights < 0.4 * original
    assert on_the_fly < weights + rest + largest + 8e6 < original


PEAK = """
import json, pathlib, pio
with pio.load("demo") as model:
    model.generate("class Point:", max_new_tokens=60, ignore_eos=True)
    model.logits(list(range(16, 700)))
    # ru_maxrss would remember the program that started this one
    status = pathlib.Path("/proc/self/status").read_text("utf-8")
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(json.dumps([peak, model.metadata.memory["weights"] + model.metadata.memory["cache"]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_of_a_process(tmp_path):
    """At most 1.1 x (weights + cache) + 250 MB, in the process that has the kernels compiled and in the next."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, env=environment)
        peak, model = json.loads(run.stdout)
        logits = 684 * 4096 * 4
        assert peak <= 1.1 * model + 250e6 + logits
