"""Folders and requests that must be refused: one typed error that names the field and the remedy, and life goes on."""

import json
import math
import struct

import pytest
from needs import needs_replaceable_files

import pio
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.tensor import Tensor

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 41,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "torch_dtype": "float32",
    "eos_token_id": 3,
}


def shapes():
    hidden, heads = CONFIG["hidden_size"], CONFIG["head_dim"] * CONFIG["num_attention_heads"]
    kv, mid = CONFIG["head_dim"] * CONFIG["num_key_value_heads"], CONFIG["intermediate_size"]
    found = {"model.embed_tokens.weight": (CONFIG["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for i in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{i}."
        found |= {
            at + "self_attn.q_proj.weight": (heads, hidden),
            at + "self_attn.k_proj.weight": (kv, hidden),
            at + "self_attn.v_proj.weight": (kv, hidden),
            at + "self_attn.o_proj.weight": (hidden, heads),
            at + "self_attn.q_norm.weight": (CONFIG["head_dim"],),
            at + "self_attn.k_norm.weight": (CONFIG["head_dim"],),
            at + "mlp.gate_proj.weight": (mid, hidden),
            at + "mlp.up_proj.weight": (mid, hidden),
            at + "mlp.down_proj.weight": (hidden, mid),
            at + "input_layernorm.weight": (hidden,),
            at + "post_attention_layernorm.weight": (hidden,),
        }
    return found


def tensors():
    def filled(name, shape):
        flat = [math.sin(17 * i + len(name)) * 0.3 + (len(shape) == 1) for i in range(math.prod(shape))]
        return Tensor.from_list(flat).reshape(*shape)

    return {name: filled(name, shape) for name, shape in shapes().items()}


def folder(path, *, config=None, weights=None):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    write_safetensors(path / "model.safetensors", weights or tensors())
    return path


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    with pio.load(folder(tmp_path_factory.mktemp("healthy") / "model")) as model:
        yield model


def answers(model):
    return model.generate([1, 2, 7], max_new_tokens=4, temperature=0.0, ignore_eos=True).token_ids


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"model_type": "mamba9"}, pio.UnsupportedModelError, ["model_type", "mamba9", "qwen3"]),
        ({"model_type": None}, pio.UnsupportedModelError, ["model_type"]),
        ({"hidden_act": "relu"}, pio.UnsupportedModelError, ["hidden_act", "relu", "silu"]),
        ({"hidden_size": 16}, pio.CheckpointError, ["model.embed_tokens.weight", "[41, 12]", "[41, 16]"]),
        ({"num_hidden_layers": 3}, pio.CheckpointError, ["model.layers.2", "missing"]),
        ({"num_hidden_layers": 1}, pio.CheckpointError, ["model.layers.1", "does not use"]),
        ({"num_key_value_heads": 3}, pio.CheckpointError, ["num_attention_heads", "multiple"]),
        ({"num_attention_heads": 0}, pio.CheckpointError, ["num_attention_heads", "0"]),
        ({"head_dim": 7}, pio.CheckpointError, ["head_dim", "7"]),
        ({"vocab_size": -41}, pio.CheckpointError, ["vocab_size", "-41"]),
        ({"vocab_size": 10**12}, pio.CheckpointError, ["vocab_size"]),
        ({"vocab_size": "41x"}, pio.CheckpointError, ["vocab_size", "41x"]),
        ({"vocab_size": "41"}, pio.CheckpointError, ["vocab_size is '41', expected a whole number"]),
        ({"num_key_value_heads": 2.0}, pio.CheckpointError, ["num_key_value_heads is 2.0, expected a whole number"]),
        ({"num_key_value_heads": True}, pio.CheckpointError, ["num_key_value_heads is True, expected a whole number"]),
        ({"num_hidden_layers": True}, pio.CheckpointError, ["num_hidden_layers is True, expected a whole number"]),
        ({"rms_norm_eps": "1e-6"}, pio.CheckpointError, ["rms_norm_eps is '1e-6', expected a number"]),
        ({"rms_norm_eps": False}, pio.CheckpointError, ["rms_norm_eps is False, expected a number"]),
        ({"tie_word_embeddings": 1}, pio.CheckpointError, ["tie_word_embeddings is 1, expected true or false"]),
        ({"use_sliding_window": "no"}, pio.CheckpointError, ["use_sliding_window is 'no', expected true or false"]),
        ({"layer_types": "full_attention"}, pio.CheckpointError, ["layer_types is 'full_attention', expected a list"]),
        ({"hidden_size": 1 << 21}, pio.CheckpointError, ["hidden_size is 2097152, expected", "1048576"]),
        ({"num_hidden_layers": 10**9}, pio.CheckpointError, ["num_hidden_layers"]),
        ({"rms_norm_eps": "NaN"}, pio.CheckpointError, ["rms_norm_eps"]),
        ({"layer_types": ["full_attention"]}, pio.CheckpointError, ["layer_types", "1", "2"]),
        ({"layer_types": ["full_attention", "mamba"]}, pio.UnsupportedModelError, ["layer_types", "mamba"]),
        ({"layer_types": ["sliding_attention"] * 2}, pio.CheckpointError, ["sliding_window"]),
        ({"attention_bias": True}, pio.CheckpointError, ["q_proj.bias", "missing"]),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            pio.UnsupportedModelError,
            ["rope_type", "dynamic"],
        ),
        ({"rope_scaling": {"rope_type": "yarn", "factor": -4.0}}, pio.CheckpointError, ["factor", "-4"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": "four"}}, pio.CheckpointError, ["factor", "four"]),
        ({"rope_scaling": {"rope_type": "linear"}}, pio.CheckpointError, ["factor"]),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, pio.CheckpointError, ["low_freq_factor"]),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 4, "high_freq_factor": 4}},
            pio.CheckpointError,
            ["low_freq_factor", "high_freq_factor"],
        ),
        (
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": None},
            pio.CheckpointError,
            ["max_window_layers", "None"],
        ),
        ({"rope_theta": 0}, pio.CheckpointError, ["rope_theta"]),
        ({"partial_rotary_factor": 0.5}, pio.UnsupportedModelError, ["partial_rotary_factor", "0.5"]),
        (
            {"rope_theta": 1.0, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
            pio.CheckpointError,
            ["rope_theta"],
        ),
        ({"eos_token_id": [-1]}, pio.CheckpointError, ["eos_token_id"]),
        ({"eos_token_id": "two"}, pio.CheckpointError, ["eos_token_id", "two"]),
        ({"tie_word_embeddings": False}, pio.CheckpointError, ["lm_head.weight", "missing"]),
    ],
    ids=lambda value: "-".join(f"{k}={v}"[:40] for k, v in value.items()) if isinstance(value, dict) else None,
)
def test_configs_that_contradict(tmp_path, healthy, config, error, words):
    before = answers(healthy)
    with pytest.raises(error) as caught:
        pio.load(folder(tmp_path / "bad", config=config))
    for word in words:
        assert word in str(caught.value)
    assert answers(healthy) == before


ANSWERS = {
    "generate": lambda model, ids: model.generate(ids),
    "stream": lambda model, ids: list(model.stream(ids)),
    "infer_batch": lambda model, ids: model.infer_batch([ids]),
    "handle": lambda model, ids: model.submit(ids).result(),
    "pieces": lambda model, ids: list(model.submit(ids)),
    "events": lambda model, ids: list(model.submit(ids).events()),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_way_to_an_answer_names_the_damaged_weight(tmp_path, answer):
    weights = tensors()
    weights["model.norm.weight"].memoryview()[4] = math.nan
    with pio.load(folder(tmp_path / "bad", weights=weights)) as model:
        with pytest.raises(pio.CheckpointError, match=r"model.norm.weight.*\[4\]"):
            ANSWERS[answer](model, [1, 2, 7])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"])
def test_weights_that_are_no_numbers_are_named(tmp_path, healthy, name, value):
    weights = tensors()
    view = weights[name].memoryview()
    view[2, 5] = value
    with pio.load(folder(tmp_path / "bad", weights=weights)) as model:
        with pytest.raises(pio.CheckpointError, match=name) as caught:
            model.generate([1, 2, 7], max_new_tokens=4)
        assert "[2, 5]" in str(caught.value)
        with pytest.raises(pio.CheckpointError, match=name):
            model.check_weights()
    assert answers(healthy)


def test_a_tied_model_may_store_its_head_and_it_counts_when_it_differs(tmp_path, healthy):
    weights = tensors()
    same = {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]}
    with pio.load(folder(tmp_path / "same", weights=same)) as model:
        assert answers(model) == answers(healthy)
    other = {**weights, "lm_head.weight": tensors()["model.embed_tokens.weight"].astype("float32")}
    view = other["lm_head.weight"].memoryview()
    for c in range(CONFIG["hidden_size"]):
        view[9, c] = 40.0 * weights["model.norm.weight"].memoryview()[c]
    with pio.load(folder(tmp_path / "other", weights=other)) as model:
        assert bytes(model.logits([1, 2]).memoryview()) != bytes(healthy.logits([1, 2]).memoryview())


@pytest.mark.parametrize("field", ["top_k", "top_p", "temperature"])
def test_defaults_that_no_request_could_run_with(tmp_path, field):
    path = folder(tmp_path / "bad")
    (path / "generation_config.json").write_text(json.dumps({field: -1}))
    with pytest.raises(pio.CheckpointError, match=rf"generation_config.json: .*{field}"):
        pio.load(path)


@needs_replaceable_files
def test_a_file_that_shrinks_while_it_is_used(tmp_path):
    path = folder(tmp_path / "shrinks")
    file = SafetensorsFile(path / "model.safetensors")
    (path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")  # replaced by the rename of an update
    assert file.names
    with pytest.raises(pio.CheckpointError, match="missing"):
        pio.load(path)


@pytest.mark.parametrize(
    ("prompt", "fields", "error", "words"),
    [
        ([], {}, pio.ConfigError, ["prompt", "no tokens"]),
        ([41], {}, pio.ConfigError, ["41", "index 0", "40"]),
        ([1, -1], {}, pio.ConfigError, ["-1", "index 1"]),
        ([1, 2.5], {}, pio.ConfigError, ["prompt"]),
        ([2**40], {}, pio.ConfigError, ["prompt"]),
        (None, {}, pio.ConfigError, ["prompt", "NoneType"]),
        (b"text", {}, pio.ConfigError, ["prompt", "bytes"]),
        ([1] * 64, {}, pio.CapacityError, ["64", "context"]),
        ([1], {"temperature": -1}, pio.ConfigError, ["temperature", "-1"]),
        ([1], {"temperature": math.nan}, pio.ConfigError, ["temperature"]),
        ([1], {"top_p": 0}, pio.ConfigError, ["top_p"]),
        ([1], {"temprature": 1}, pio.ConfigError, ["temprature", "temperature"]),
        ([1], {"max_new_tokens": 0}, pio.ConfigError, ["max_new_tokens"]),
        ([1], {"stop_token_ids": [41]}, pio.ConfigError, ["stop_token_ids", "41"]),
        ([1], {"logit_bias": {99: 1.0}}, pio.ConfigError, ["logit_bias", "99"]),
        ([1], {"stop": "x"}, pio.ConfigError, ["stop", "tokenizer"]),
        ("text", {}, pio.ConfigError, ["tokenizer"]),
        ([{"role": "user", "content": "hi"}], {}, pio.ConfigError, ["tokenizer"]),
        ([1], {"tools": [{"type": "function"}]}, pio.ConfigError, ["tools", "messages"]),
    ],
)
def test_requests_that_cannot_be_answered(healthy, prompt, fields, error, words):
    before = answers(healthy)
    with pytest.raises(error) as caught:
        healthy.generate(prompt, **fields)
    for word in words:
        assert word in str(caught.value)
    assert answers(healthy) == before


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"profile": "fastest"}, pio.ConfigError, ["profile", "fastest"]),
        ({"thread": 2}, pio.ConfigError, ["thread", "threads"]),
        ({"threads": 0}, pio.ConfigError, ["threads", "0"]),
        ({"device": "tpu"}, pio.ConfigError, ["device", "tpu"]),
        ({"quantize": "int3"}, pio.ConfigError, ["quantize", "int3", "int4_zero_point"]),
        ({"kv_cache_dtype": "int1"}, pio.ConfigError, ["kv_cache_dtype"]),
        ({"activation_dtype": "float16"}, pio.ConfigError, ["activation_dtype", "float16", "bfloat16"]),
        ({"memory_limit": 1000}, pio.OutOfMemoryError, ["weights", "1000 bytes"]),
        ({"memory_limit": 40_000}, pio.OutOfMemoryError, ["activations", "prefill_chunk", "40000 bytes"]),
        ({"cache_tokens": 1 << 34}, pio.OutOfMemoryError, ["cache"]),
        ({"plugin": "qwen9"}, pio.ConfigError, ["qwen9", "qwen3_0_6b"]),
    ],
)
def test_options_that_cannot_be_used(tmp_path, healthy, options, error, words):
    with pytest.raises(error) as caught:
        pio.load(folder(tmp_path / "model"), **options)
    for word in words:
        assert word in str(caught.value)
    assert answers(healthy)


def test_a_stream_of_several_answers_is_refused_before_it_runs(healthy, monkeypatch):
    queue, handles = healthy.loaded.manager.submit, []
    monkeypatch.setattr(healthy.loaded.manager, "submit", lambda *a, **k: handles.append(queue(*a, **k)) or handles[0])
    with pytest.raises(pio.ConfigError, match="n=2"):
        healthy.stream([1, 2], n=2, temperature=1.0, ignore_eos=True)
    assert handles == []


def test_an_update_that_fails_leaves_the_model_as_it_was(tmp_path):
    with pio.load(folder(tmp_path / "model"), prefill_chunk=5) as model:
        before = answers(model)
        with pytest.raises(pio.ConfigError, match="threads"):
            model.update(threads=-3)
        with pytest.raises(pio.ConfigError, match="prefil_chunk"):
            model.update(prefil_chunk=9)
        with pytest.raises(pio.OutOfMemoryError, match="memory_limit"):
            model.update(memory_limit=1000)
        assert model.runtime.memory_limit is None
        assert model.runtime.prefill_chunk == 5
        assert answers(model) == before
        assert model.update(profile="memory_efficient", threads=1).kv_cache_dtype == "float16"
        assert model.runtime.prefill_chunk == 5
        assert answers(model)


def test_a_closed_model_says_so_and_loads_again(tmp_path):
    model = pio.load(folder(tmp_path / "model"))
    before = answers(model)
    assert model.cleanup()
    assert model.cleanup()
    for call in (lambda: model.generate([1]), lambda: model.logits([1]), lambda: model.tokenize("x")):
        with pytest.raises(pio.PioError, match="not loaded"):
            call()
    assert answers(model.load_model()) == before
    model.cleanup()
