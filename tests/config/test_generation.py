"""What generation_config.json asks for: done, refused by name, or said."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pio.config.decoder import eos_token_ids
from pio.config.generation import sampling_defaults
from pio.engine.sampling_params import SamplingParams
from pio.errors import CheckpointError, ConfigError, UnsupportedModelError

CHECKPOINTS = Path(__file__).parents[2] / ".." / "shared" / "checkpoints"
SAMPLING = {
    "qwen3-0.6b": {"temperature": 0.6, "top_k": 20, "top_p": 0.95},
    "qwen3-4b-instruct-2507": {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
    "qwen3-coder-30b-a3b-instruct": {"repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20, "top_p": 0.8},
    "qwen3-coder-next": {"temperature": 1.0, "top_k": 40, "top_p": 0.95},
    "qwen3-vl-2b-instruct": {"repetition_penalty": 1.0, "temperature": 0.7, "top_k": 20, "top_p": 0.8},
    "glm-4.7-flash": {"temperature": 1.0, "top_p": 0.95},
}


@pytest.mark.parametrize("name", SAMPLING)
def test_real_files_are_read_without_a_word(name: str, caplog: pytest.LogCaptureFixture) -> None:
    if not CHECKPOINTS.is_dir():
        pytest.skip("../shared/checkpoints is not there")
    read = {
        file: json.loads((CHECKPOINTS / name / file).read_text("utf-8"))
        for file in ("config.json", "generation_config.json")
        for file in ("config.json", "generation_config.json")
    }
    assert sampling_defaults(read["generation_config.json"]) == SAMPLING[name]
    assert caplog.records == []
    found = {token for file, raw in read.items() for token in eos_token_ids(raw, file)}
    assert found == ({154820, 154827, 154829} if name.startswith("glm") else {151645, 151643})


def test_what_is_done_goes_by_its_own_name() -> None:
    raw: dict[str, Any] = {
        "max_new_tokens": 9,
        "max_length": 40,
        "min_new_tokens": 2,
        "min_length": 3,
        "suppress_tokens": [4],
        "begin_suppress_tokens": [5, 6],
        "bad_words_ids": [[7], [8, 9]],
        "no_repeat_ngram_size": 3,
        "min_p": 0.25,
    }
    assert sampling_defaults(raw) == raw
    params = SamplingParams.merge(sampling_defaults({**raw, "stop_strings": ["END", "\n\n"], "top_k": None}))
    assert (params.stop_strings, params.bad_words_ids, params.top_k) == (("END", "\n\n"), ((7,), (8, 9)), 0)
    assert sampling_defaults({"stop_strings": "END"}) == {"stop": ["END"]}
    assert SamplingParams.merge(sampling_defaults({"stop_strings": "END"}), stop=["other"]).stop_strings == ("other",)
    assert SamplingParams.merge({"suppress_tokens": [4]}, suppress_tokens=[]).suppress_tokens == ()


def test_a_checkpoint_that_does_not_sample_is_greedy_until_told_otherwise() -> None:
    defaults = sampling_defaults({"do_sample": False, "temperature": 0.6, "top_k": None})
    assert SamplingParams.merge(defaults).greedy
    assert SamplingParams.merge(defaults, temperature=0.7).temperature == 0.7
    with pytest.raises(ConfigError, match="n=2 contradicts"):
        SamplingParams.merge(defaults, n=2)


REFUSED: dict[str, tuple[Any, list[Any]]] = {  # a value that changes answers, and values that ask for nothing
    "num_beams": (4, [1]),
    "num_beam_groups": (2, [1]),
    "num_return_sequences": (2, [1]),
    "diversity_penalty": (0.5, [0.0]),
    "penalty_alpha": (0.6, [0, 0.0]),
    "guidance_scale": (1.5, [1, 1.0]),
    "typical_p": (0.9, [1.0]),
    "epsilon_cutoff": (3e-4, [0.0]),
    "eta_cutoff": (3e-4, [0.0]),
    "top_h": (0.4, []),
    "dola_layers": ("high", []),
    "encoder_repetition_penalty": (1.2, [1.0]),
    "encoder_no_repeat_ngram_size": (3, [0]),
    "exponential_decay_length_penalty": ([10, 1.2], []),
    "sequence_bias": ([[[4], -2.0]], [[], {}]),
    "forced_bos_token_id": (3, []),
    "forced_eos_token_id": (3, []),
    "forced_decoder_ids": ([[1, 3]], [[]]),
    "force_words_ids": ([[3]], [[]]),
    "constraints": (["x"], [[]]),
    "token_healing": (True, [False]),
    "watermarking_config": ({"bias": 2.0}, []),
    "max_time": (2.5, []),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(name: str, caplog: pytest.LogCaptureFixture) -> None:
    value, nothing = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=rf"generation_config.json: {name} is .*take the field out"):
        sampling_defaults({"temperature": 0.5, name: value})
    for harmless in [None, *nothing]:
        assert sampling_defaults({"temperature": 0.5, name: harmless}) == {"temperature": 0.5}
    assert caplog.records == []


def test_what_nobody_knows_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    silent = {"transformers_version": "5.0", "use_cache": False, "cache_implementation": "static", "pad_token_id": 0}
    with caplog.at_level(logging.WARNING, "pio"):
        assert sampling_defaults({**silent, "wit": 3, "charm": [1], "absent": None}) == {}
    assert [record.getMessage() for record in caplog.records] == [
        "generation_config.json: pio does not know 'charm', 'wit'; what they ask for is not done"
    ]
    with caplog.at_level(logging.WARNING, "pio"):
        sampling_defaults({"x" * 10_000 + str(i): i for i in range(20)})
    assert len(caplog.records) == 2 and len(caplog.records[1].getMessage()) < 1000


def test_a_folder_that_holds_ends_back_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pio"):
        assert sampling_defaults({"min_new_tokens": 5, "min_length": 0}) == {"min_new_tokens": 5, "min_length": 0}
    (record,) = caplog.records
    assert "min_new_tokens=5" in record.getMessage() and "min_new_tokens=0" in record.getMessage()


@pytest.mark.parametrize(
    ("field", "value"),
    [("do_sample", "no"), ("do_sample", 1), ("stop_strings", [""]), ("stop_strings", 7), ("stop_strings", [7])],
)
def test_values_of_no_sense_name_file_and_field(field: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"^generation_config.json: {field} is .*, expected .*correct the field"):
        sampling_defaults({field: value})


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({}, ()),
        ({"eos_token_id": None}, ()),
        ({"eos_token_id": 0}, (0,)),
        ({"eos_token_id": [5, 3, 5]}, (5, 3)),
        ({"eos_token_id": 5, "text_config": {"eos_token_id": [3, 5]}}, (5, 3)),
        ({"text_config": {"eos_token_id": 4}}, (4,)),
        ({"text_config": None, "eos_token_id": 2}, (2,)),
    ],
)
def test_end_tokens_of_a_file(raw: dict[str, Any], found: tuple[int, ...]) -> None:
    assert eos_token_ids(raw, "config.json") == found


@pytest.mark.parametrize("value", [-1, "2", True, 2.0, [1, None], [[1]], {"id": 1}])
def test_end_tokens_that_are_none(value: Any) -> None:
    for raw, field in (
        ({"eos_token_id": value}, "eos_token_id"),
        ({"text_config": {"eos_token_id": value}}, "text_con"),
    ):
        with pytest.raises(CheckpointError, match=f"^config.json: {field}.*expected a token id or a list of them"):
            eos_token_ids(raw, "config.json")
