"""The golden checkpoints cover what README.md here promises, and their answers are no matter of luck."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from golden_case import NEW_TOKENS, answers, config_of

HERE = Path(__file__).parent
DENSE = HERE / "qwen3"
CASES = sorted(folder.name for folder in DENSE.iterdir())
EXPERTS = ("qwen3_moe", "qwen3_next", "glm4_moe_lite")


def names(folder: Path) -> set[str]:
    """Of the stored tensors, from the headers of the files."""
    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        data = file.read_bytes()
        found |= set(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])) - {"__metadata__"}
    return found


def configs(architecture: str) -> list[dict[str, Any]]:
    return [config_of(folder) for folder in sorted((HERE / architecture).iterdir())]


def test_dense_fixtures_are_small_and_decide() -> None:
    assert sum(f.stat().st_size for f in DENSE.rglob("*") if f.is_file()) < 3_000_000
    for case in CASES:
        for prompt in answers(DENSE / case)["prompts"]:
            assert len(prompt["greedy"]) == len(prompt["margins"]) == NEW_TOKENS
            assert prompt["smallest_margin"] == min(prompt["margins"]) > 0.02


def test_the_fixtures_cover_qwen3() -> None:
    configs = [config_of(DENSE / case) for case in CASES]
    ropes = [c.get("rope_parameters") or c.get("rope_scaling") or {} for c in configs]
    groups = {c["num_attention_heads"] // c["num_key_value_heads"] for c in configs}
    assert groups >= {1, 2, 3, 5}
    assert any(c["num_key_value_heads"] == 1 for c in configs)
    assert {c["tie_word_embeddings"] for c in configs} == {True, False}
    assert {c.get("dtype") or c.get("torch_dtype") for c in configs} == {"float32", "float16", "bfloat16"}
    assert {("rope_parameters" in c, "rope_theta" in c) for c in configs} == {(True, False), (False, True)}
    assert {r.get("rope_type") or r.get("type", "default") for r in ropes} == {"default", "linear", "llama3", "yarn"}
    assert any(c["hidden_size"] % 2 and c["vocab_size"] % 2 and c["intermediate_size"] % 2 for c in configs)
    assert any(c["attention_bias"] for c in configs)
    assert sum(c["use_sliding_window"] for c in configs) == 2
    assert any(c["head_dim"] * c["num_attention_heads"] != c["hidden_size"] for c in configs)
    assert any((DENSE / case).glob("*.index.json") for case in CASES)
    lengths = {len(prompt["ids"]) for case in CASES for prompt in answers(DENSE / case)["prompts"]}
    assert lengths >= {1, 2, 17, 90, 300}


def test_fixtures_with_experts_are_small_and_decide() -> None:
    assert sum(f.stat().st_size for a in EXPERTS for f in (HERE / a).rglob("*") if f.is_file()) < 6_000_000
    for folder in (f for a in EXPERTS for f in (HERE / a).iterdir()):
        for prompt in answers(folder)["prompts"]:
            assert len(prompt["greedy"]) == len(prompt["margins"]) == NEW_TOKENS
            assert prompt["smallest_margin"] == min(prompt["margins"]) > 0.02
            assert prompt["smallest_router_margin"] > 0.009


@pytest.mark.parametrize("architecture", EXPERTS)
def test_the_fixtures_cover_what_all_share(architecture: str) -> None:
    found = configs(architecture)
    ropes = [c.get("rope_parameters") or c.get("rope_scaling") or {} for c in found]
    experts = [c.get("num_experts") or c.get("num_local_experts") or c["n_routed_experts"] for c in found]
    assert len(found) >= 3
    assert {c.get("tie_word_embeddings", False) for c in found} == {True, False}
    assert {c.get("dtype") or c.get("torch_dtype") for c in found} == {"float32", "float16", "bfloat16"}
    assert {"rope_parameters" in c for c in found} == {True, False}
    assert any(r.get("rope_type") == "yarn" for r in ropes)
    assert any(n & (n - 1) for n in experts)
    assert any((HERE / architecture).glob("*/*.index.json"))
    for folder in (HERE / architecture).iterdir():
        assert any(name.endswith("mlp.experts.0.gate_proj.weight") for name in names(folder))
        assert not any(name.endswith("experts.gate_up_proj") for name in names(folder))
    lengths = {len(p["ids"]) for folder in (HERE / architecture).iterdir() for p in answers(folder)["prompts"]}
    assert lengths >= {1, 2, 300}


def test_the_fixtures_cover_qwen3_moe() -> None:
    found = configs("qwen3_moe")
    assert {c.get("norm_topk_prob", False) for c in found} == {True, False}
    assert {c["num_experts_per_tok"] for c in found} == {1, 2, 3}
    assert any(c.get("mlp_only_layers") and c.get("decoder_sparse_step", 1) == 2 for c in found)
    assert any(c.get("attention_bias") for c in found)
    tied = next(f for f in (HERE / "qwen3_moe").iterdir() if config_of(f).get("tie_word_embeddings"))
    assert "lm_head.weight" in names(tied)


def test_the_fixtures_cover_qwen3_next() -> None:
    found = configs("qwen3_next")
    assert {c["linear_num_value_heads"] // c["linear_num_key_heads"] for c in found} == {1, 2, 3}
    assert any(c["linear_key_head_dim"] % 2 and c["linear_value_head_dim"] % 2 for c in found)
    assert all(c["linear_key_head_dim"] != c["linear_value_head_dim"] for c in found)
    assert {c.get("linear_conv_kernel_dim", 4) for c in found} == {2, 3, 4}
    assert {c.get("norm_topk_prob", True) for c in found} == {True, False}
    assert {"layer_types" in c for c in found} == {"full_attention_interval" in c for c in found} == {True, False}
    assert any("partial_rotary_factor" not in {**c, **c.get("rope_parameters", {})} for c in found)
    assert any(c.get("mlp_only_layers") for c in found)
    assert any(c.get("decoder_sparse_step") == 2 for c in found)
    assert any(name.startswith("mtp.") for f in (HERE / "qwen3_next").iterdir() for name in names(f))


def test_the_fixtures_cover_glm4_moe_lite() -> None:
    found = configs("glm4_moe_lite")
    assert {c.get("q_lora_rank", 768) is None for c in found} == {True, False}
    assert {(c.get("n_group", 1) > 1, c.get("topk_group", 1) > 1) for c in found} == {
        (False, False),
        (True, False),
        (True, True),
    }
    assert {c.get("norm_topk_prob", True) for c in found} == {True, False}
    assert {c.get("n_shared_experts", 1) for c in found} == {1, 2}
    assert {c.get("routed_scaling_factor", 1.8) for c in found} == {0.7, 1.8, 2.5}
    assert {c.get("first_k_dense_replace") for c in found} == {0, 1, 2, None}
    assert any("mlp_layer_types" in c for c in found)
    assert {c.get("rope_interleave", True) for c in found} == {True, False}
    assert any((c.get("rope_scaling") or {}).get("mscale_all_dim") for c in found)
    assert any(c.get("attention_bias") for c in found)
    for folder in (HERE / "glm4_moe_lite").iterdir():
        config = config_of(folder)
        extra = f"model.layers.{config['num_hidden_layers']}."
        assert any(name.startswith(extra) for name in names(folder)) == bool(config.get("num_nextn_predict_layers"))
