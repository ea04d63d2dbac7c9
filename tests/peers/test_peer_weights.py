"""The checkpoint that every engine is given."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from peer_models import ALL, CONFIG, MOE, NEXT, made
from tokenizers import Tokenizer

import pio
from benchmarks.peers import checkpoint
from benchmarks.peers.shapes import shapes
from pio.errors import PioError


@pytest.mark.parametrize("config", ALL)
def test_a_checkpoint_loads_and_answers(config: dict[str, Any], tmp_path: Path) -> None:
    folder = made(tmp_path / "model", config)
    with pio.load(folder, progress=False) as model:
        assert len(model.generate([3, 5, 7], max_new_tokens=4, ignore_eos=True).token_ids) == 4
        assert model.detokenize(model.tokenize("the thaw")) == "the thaw"


def test_same_config_and_seed_same_bytes(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> bytes:
        return (made(tmp_path / name, CONFIG, seed) / "model.safetensors").read_bytes()

    assert weights("a", 4) == weights("b", 4) != weights("c", 5)
    assert checkpoint.name_of(CONFIG, 4) != checkpoint.name_of(CONFIG, 5)
    assert checkpoint.name_of(CONFIG | {"rope_theta": 1e4}, 4) != checkpoint.name_of(CONFIG, 4)


def test_an_untied_head_is_written() -> None:
    assert "lm_head.weight" not in shapes(CONFIG)
    assert shapes(CONFIG | {"tie_word_embeddings": False})["lm_head.weight"] == (307, 48)


def test_what_pio_cannot_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PioError, match="gpt"):
        made(tmp_path / "model", CONFIG | {"model_type": "gpt", "architectures": ["GPT"]})
    assert not (tmp_path / "model").exists()


def test_experts_lie_apart_as_published() -> None:
    found = shapes(MOE)
    assert len(found) == 3 + 2 * (8 + 1 + 3 * 5)
    assert found["model.layers.1.mlp.experts.4.down_proj.weight"] == (48, 24)
    assert found["model.layers.0.mlp.gate.weight"] == (5, 48)


def test_every_fourth_layer_of_qwen3_next_attends() -> None:
    found = shapes(NEXT)
    assert [f"model.layers.{i}.self_attn.q_proj.weight" in found for i in range(4)] == [False, False, False, True]
    assert found["model.layers.3.self_attn.q_proj.weight"] == (2 * 96, 48)
    assert found["model.layers.2.linear_attn.in_proj_qkvz.weight"] == (2 * 32 + 2 * 48, 48)
    assert found["model.layers.2.linear_attn.conv1d.weight"] == (2 * 32 + 48, 1, 4)
    assert found["model.layers.0.mlp.shared_expert_gate.weight"] == (1, 48)


def test_vectors_leave_what_they_scale_as_it_is() -> None:
    assert checkpoint.neutral(MOE, "model.norm.weight") == 1.0
    assert (
        checkpoint.neutral(NEXT, "model.norm.weight")
        == checkpoint.neutral(NEXT, "model.layers.0.linear_attn.A_log")
        == 0.0
    )
    assert checkpoint.neutral(NEXT, "model.layers.0.linear_attn.norm.weight") == 1.0


def test_bfloat16_rounds_to_nearest_and_ties_to_even() -> None:
    numbers = [1.0, -2.5, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20]
    assert struct.unpack("<5H", checkpoint.to_bfloat16(numbers)) == (0x3F80, 0xC020, 0x3F80, 0x3F82, 0x3F81)


def test_a_tokenizer_beside_the_config_is_taken(tmp_path: Path) -> None:
    for name in checkpoint.TOKENIZER:
        (tmp_path / name).write_text('{"name": "mine"}', "utf-8")
    folder = checkpoint.write_checkpoint(tmp_path / "model", CONFIG, tmp_path)
    assert json.loads((folder / "tokenizer.json").read_text("utf-8")) == {"name": "mine"}


def test_a_made_tokenizer_names_every_id(tmp_path: Path) -> None:
    checkpoint.write_tokenizer(tmp_path, CONFIG)
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size() == CONFIG["vocab_size"]
