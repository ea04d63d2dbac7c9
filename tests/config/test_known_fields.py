"""Every field of config.json is used, known to change nothing, refused by name, or warned of."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import pio
from pio.config.decoder import DecoderConfig
from pio.plugin import registry
from pio.plugin.manifest import import_object

PUBLISHED = Path(__file__).parents[2] / ".." / "shared" / "checkpoints"
CONFIG: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 61}
TYPES = {"qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe", "qwen3_next": "Qwen3Next", "glm4_moe_lite": "Glm4MoeLite"}


def read(raw: dict[str, Any]) -> DecoderConfig:
    manifest, _ = registry.choose(raw)
    return import_object(manifest.components["config"]).from_checkpoint(raw)


def config(kind: str, **fields: Any) -> dict[str, Any]:
    return {"model_type": kind, "architectures": [TYPES[kind] + "ForCausalLM"], **CONFIG, **fields}


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    class Messages(list[str]):
        def __iter__(self) -> Any:
            return iter([record.getMessage() for record in caplog.records])

        def __len__(self) -> int:
            return len(caplog.records)

    caplog.set_level(logging.WARNING, "pio")
    return Messages()


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published configs are not on this machine")
@pytest.mark.parametrize(
    "folder",
    ["qwen3-0.6b", "qwen3-4b-instruct-2507", "qwen3-coder-30b-a3b-instruct", "qwen3-coder-next", "glm-4.7-flash"],
)
def test_every_field_of_published_configs_is_known(folder: str, warnings: list[str]) -> None:
    read(json.loads((PUBLISHED / folder / "config.json").read_text("utf-8")))
    assert list(warnings) == []


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published configs are not on this machine")
def test_a_model_that_sees_in_another_way_is_refused() -> None:
    published = json.loads((PUBLISHED / "qwen3-vl-2b-instruct" / "config.json").read_text("utf-8"))
    with pytest.raises(pio.UnsupportedModelError, match="model_type is 'qwen3_vl_moe'"):
        read({**published, "model_type": "qwen3_vl_moe"})


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "fields",
    [
        {"attention_dropout": 0.1, "hidden_dropout": 0.2, "initializer_range": 0.5, "use_cache": False},
        {"pretraining_tp": 4, "output_attentions": True, "unsloth_version": "1.0", "id2label": {"0": "A"}},
        {"final_logit_softcapping": None, "attn_logit_softcapping": None, "clip_qkv": None},
        {"logit_scale": 1.0, "residual_multiplier": 1, "embedding_multiplier": 1.0, "mlp_bias": False},
        {"auto_map": {"AutoConfig": "configuration_x.XConfig"}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [1, 2]}},
        {"architectures": None},
        {"architectures": []},
        {"original_max_position_embeddings": 4096, "partial_rotary_factor": 1.0},
    ],
)
def test_what_changes_nothing_is_accepted(kind: str, fields: dict[str, Any], warnings: list[str]) -> None:
    read(config(kind, **fields))
    assert list(warnings) == []


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("final_logit_softcapping", 30.0),
        ("attn_logit_softcapping", 50),
        ("logit_scale", 0.0625),
        ("logits_scaling", 8.0),
        ("residual_multiplier", 0.22),
        ("embedding_multiplier", 12.0),
        ("attention_multiplier", 0.0078),
        ("query_pre_attn_scalar", 256),
        ("clip_qkv", 8.0),
        ("mlp_bias", True),
        ("use_bias", True),
        ("alibi", True),
        ("is_encoder_decoder", True),
        ("no_rope_layers", [1, 1, 0]),
        ("attention_chunk_size", 8192),
        ("dual_chunk_attention_config", {"chunk_size": 262144}),
        ("hidden_activation", "gelu_pytorch_tanh"),
        ("hidden_act", "gelu"),
        ("layer_types", ["full_attention"] * 3 + ["chunked_attention"]),
        ("pruned_heads", {"0": [1]}),
    ],
)
def test_what_changes_answers_is_refused_by_name(kind: str, field: str, value: Any) -> None:
    with pytest.raises(pio.UnsupportedModelError, match=rf"config.json: {field}.*choose"):
        read(config(kind, **{field: value}))


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("qwen3", "use_qk_norm", False),
        ("qwen3", "n_shared_experts", 1),
        ("qwen3", "attn_output_gate", True),
        ("qwen3", "rope_interleave", True),
        ("qwen3_moe", "routed_scaling_factor", 2.5),
        ("qwen3_moe", "scoring_func", "sigmoid"),
        ("qwen3_moe", "shared_expert_intermediate_size", 512),
        ("qwen3_moe", "topk_group", 4),
        ("qwen3_next", "attn_output_gate", False),
        ("glm4_moe_lite", "use_qk_norm", True),
        ("glm4_moe_lite", "moe_layer_freq", 2),
        ("glm4_moe_lite", "scoring_func", "softmax"),
    ],
)
def test_what_one_architecture_has_and_another_lacks(kind: str, field: str, value: Any) -> None:
    with pytest.raises(pio.UnsupportedModelError, match=f"config.json: {field} is {value!r}"):
        read(config(kind, **{field: value}))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("qwen3", {"use_qk_norm": True, "rope_interleave": False, "n_shared_experts": 0}),
        ("qwen3_moe", {"routed_scaling_factor": 1.0, "scoring_func": "softmax", "n_group": 1}),
        ("qwen3_next", {"attn_output_gate": True, "shared_expert_intermediate_size": 512}),
        ("glm4_moe_lite", {"use_qk_norm": False, "rope_interleave": True, "routed_scaling_factor": 2.5}),
        ("glm4_moe_lite", {"n_group": 4, "topk_group": 2, "n_shared_experts": 2, "num_nextn_predict_layers": 2}),
    ],
)
def test_what_an_architecture_has_of_its_own(kind: str, fields: dict[str, Any], warnings: list[str]) -> None:
    read(config(kind, **fields))
    assert list(warnings) == []


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "name", ["ForSequenceClassification", "ForTokenClassification", "ForRewardModel", "Model", "ForQuestionAnswering"]
)
def test_a_head_that_writes_no_text(kind: str, name: str) -> None:
    with pytest.raises(pio.UnsupportedModelError, match=f"architectures is '{TYPES[kind] + name}'.*ForCausalLM"):
        read(config(kind, architectures=[TYPES[kind] + name]))
    assert read(config(kind, architectures=[TYPES[kind] + name, TYPES[kind] + "ForCausalLM"]))


@pytest.mark.parametrize("value", ["Qwen3ForCausalLM", 7, [7], {"a": 1}, [["Qwen3ForCausalLM"]]])
def test_architectures_that_are_no_names(value: Any) -> None:
    with pytest.raises(pio.CheckpointError, match=r"config.json: architectures is .*, expected a list of names"):
        read(config("qwen3", architectures=value))


@pytest.mark.parametrize("kind", TYPES)
def test_fields_that_nobody_knows_are_told_once_together(kind: str, warnings: list[str]) -> None:
    more = {f"new_{i:03}": i for i in range(40)} | {"nothing": None}
    read(config(kind, rope=1, quantization=None, surprise=1, **more))
    (message,) = warnings
    assert "'new_000'" in message and "'new_019'" in message and "'new_020'" not in message
    assert "and 22 more" in message and "answers may differ" in message  # rope, surprise, and 20 of the others


def test_unknown_rotary_parameters_are_told(warnings: list[str]) -> None:
    rope = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "attn_factor": 2.0}
    read(config("qwen3", rope_parameters=rope))
    (message,) = warnings
    assert "'rope_parameters.attn_factor'" in message


def test_code_of_the_folders_own_is_told_and_not_run(warnings: list[str]) -> None:
    code = {"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "modeling_x.XForCausalLM"}
    read(config("qwen3", auto_map=code))
    (message,) = warnings
    assert "auto_map" in message and "'modeling_x.XForCausalLM'" in message and "never runs" in message


def test_a_window_of_an_architecture_that_has_none() -> None:
    for kind in ("qwen3_next", "glm4_moe_lite"):
        with pytest.raises(pio.UnsupportedModelError, match="sliding_window is 64"):
            read(config(kind, use_sliding_window=True, sliding_window=64, max_window_layers=9))
        read(config(kind, use_sliding_window=False, sliding_window=64))
    assert read(config("qwen3", use_sliding_window=True, sliding_window=64, max_window_layers=2)).window(3) == 64


@pytest.mark.parametrize(
    ("field", "value"), [("rms_norm_eps", "NaN"), ("rms_norm_eps", "Infinity"), ("rope_theta", "Infinity")]
)
def test_what_python_writes_for_no_number_is_refused_where_it_counts(field: str, value: str) -> None:
    raw = json.loads(json.dumps(config("qwen3")).replace('"model_type"', f'"{field}": {value}, "model_type"'))
    with pytest.raises(pio.CheckpointError, match=f"config.json: {field} is (nan|inf)"):
        read(raw)
