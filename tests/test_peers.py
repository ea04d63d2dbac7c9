"""The comparison with other engines, as far as it needs none of them."""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy
import pytest
from tokenizers import Tokenizer

import pio
from benchmarks.peers import checkpoint, report
from benchmarks.peers.__main__ import main
from benchmarks.peers.catalogue import FORMATS, PEERS, Contestant, contestants
from benchmarks.peers.environments import is_ready, python_of
from benchmarks.peers.gguf_tensors import GgufTensor, as_float32, gguf_tensors
from benchmarks.peers.process import PeerError, Worker
from benchmarks.peers.rounds import Plan, Result, Sitting
from benchmarks.peers.shapes import attends, neutral, shapes
from benchmarks.peers.worker import Job, counted

CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 307,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "rope_theta": 1e6,
}
EXPERTS: dict[str, Any] = {
    "tie_word_embeddings": False,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
MOE = CONFIG | EXPERTS | {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}
NEXT = (
    CONFIG
    | EXPERTS
    | {
        "model_type": "qwen3_next",
        "architectures": ["Qwen3NextForCausalLM"],
        "num_hidden_layers": 4,
        "full_attention_interval": 4,
        "partial_rotary_factor": 0.5,
        "shared_expert_intermediate_size": 32,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
    }
)
ALL = [pytest.param(config, id=config["model_type"]) for config in (CONFIG, MOE, NEXT)]


def result(name: str, format: str, **rounds: list[float]) -> Result:
    engine, variant = name.split()
    return Result(Contestant(engine, format, variant), "1.2", 500_000_000, 900_000_000, rounds)


def made(folder: Path, config: dict[str, Any], seed: int = 0) -> Path:
    """Write a model whose config lies in no folder with a tokenizer."""
    return checkpoint.write_checkpoint(folder, config, folder / "nothing", seed)


def stored(config: dict[str, Any]) -> dict[str, numpy.ndarray[Any, Any]]:
    """Return bits of bfloat16 for every tensor, different for each name."""
    source = numpy.random.default_rng(7)
    return {name: source.integers(0x3C00, 0x4000, shape, numpy.uint16) for name, shape in shapes(config)}


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
    assert "lm_head.weight" not in dict(shapes(CONFIG))
    assert dict(shapes(CONFIG | {"tie_word_embeddings": False}))["lm_head.weight"] == (307, 48)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (CONFIG | {"model_type": "gpt"}, "model_type: expected one of qwen3, qwen3_moe, qwen3_next, found 'gpt'"),
        (MOE | {"mlp_only_layers": [1]}, "mlp_only_layers: llama.cpp knows only [], found [1]"),
        (NEXT | {"norm_topk_prob": False}, "norm_topk_prob: llama.cpp knows only True, found False"),
    ],
)
def test_what_cannot_be_compared_is_refused(config: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        made(tmp_path / "model", config)
    assert not (tmp_path / "model").exists()


def test_experts_lie_apart_as_published() -> None:
    found = dict(shapes(MOE))
    assert len(found) == 3 + 2 * (8 + 1 + 3 * 5)
    assert found["model.layers.1.mlp.experts.4.down_proj.weight"] == (48, 24)
    assert found["model.layers.0.mlp.gate.weight"] == (5, 48)


def test_every_fourth_layer_of_qwen3_next_attends() -> None:
    found = dict(shapes(NEXT))
    assert [attends(NEXT, i) for i in range(4)] == [False, False, False, True]
    assert found["model.layers.3.self_attn.q_proj.weight"] == (2 * 96, 48)
    assert found["model.layers.2.linear_attn.in_proj_qkvz.weight"] == (2 * 32 + 2 * 48, 48)
    assert found["model.layers.2.linear_attn.conv1d.weight"] == (2 * 32 + 48, 1, 4)
    assert found["model.layers.0.mlp.shared_expert_gate.weight"] == (1, 48)


def test_vectors_leave_what_they_scale_as_it_is() -> None:
    assert neutral(MOE, "model.norm.weight") == 1.0
    assert neutral(NEXT, "model.norm.weight") == neutral(NEXT, "model.layers.0.linear_attn.A_log") == 0.0
    assert neutral(NEXT, "model.layers.0.linear_attn.norm.weight") == 1.0


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


def for_llama_cpp(config: dict[str, Any]) -> dict[str, GgufTensor]:
    """Return what llama.cpp makes of made-up tensors, by name; each is what it is said to be."""
    found = list(gguf_tensors(config, stored(config)))
    named = {tensor.name: tensor for tensor in found}
    assert len(named) == len(found)
    for tensor in found:
        data = tensor.data()
        assert (data.shape, data.dtype) == (tensor.shape, numpy.float32 if tensor.exact else numpy.uint16), tensor.name
    assert sum(tensor.data().size for tensor in found) == sum(math.prod(shape) for _, shape in shapes(config))
    return named


@pytest.mark.parametrize("config", ALL)
def test_every_tensor_has_a_name_for_llama_cpp(config: dict[str, Any]) -> None:
    names = set(for_llama_cpp(config | {"tie_word_embeddings": False}))
    assert {"token_embd.weight", "output.weight", "output_norm.weight", "blk.1.attn_norm.weight"} < names
    last = config["num_hidden_layers"] - 1
    assert {f"blk.{last}.attn_q.weight", f"blk.{last}.attn_output.weight"} < names
    after = "post_attention_norm" if config is NEXT else "ffn_norm"
    assert f"blk.0.{after}.weight" in names


def test_llama_cpp_has_all_experts_of_a_layer_in_one_tensor() -> None:
    found, given = for_llama_cpp(MOE), stored(MOE)
    assert "blk.0.ffn_down.weight" not in found
    down = found["blk.1.ffn_down_exps.weight"]
    assert down.shape == (5, 48, 24) and not down.exact
    for i in range(5):
        assert (down.data()[i] == given[f"model.layers.1.mlp.experts.{i}.down_proj.weight"]).all()
    assert found["blk.0.ffn_gate_inp.weight"].exact
    assert (found["blk.0.attn_norm.weight"].data() == as_float32(given["model.layers.0.input_layernorm.weight"])).all()


def test_llama_cpp_has_recurrent_layers_its_own_way() -> None:
    found, given = for_llama_cpp(NEXT), stored(NEXT)
    at = "model.layers.2.linear_attn."
    # two key heads, each with a query and a key of 16, three values of 8 and their gates
    rows = given[at + "in_proj_qkvz.weight"]
    mixed, gates = (found[f"blk.2.{name}.weight"].data() for name in ("attn_qkv", "attn_gate"))
    for head in range(2):
        q, k, v, z = numpy.split(rows[80 * head : 80 * (head + 1)], [16, 32, 56])
        assert (mixed[16 * head : 16 * (head + 1)] == q).all()
        assert (mixed[32 + 16 * head : 32 + 16 * (head + 1)] == k).all()
        assert (mixed[64 + 24 * head : 64 + 24 * (head + 1)] == v).all()
        assert (gates[24 * head : 24 * (head + 1)] == z).all()
    assert found["blk.2.ssm_conv1d.weight"].shape == (112, 4) and found["blk.2.ssm_conv1d.weight"].exact
    decay = [-math.exp(number) for number in as_float32(given[at + "A_log"]).tolist()]
    assert found["blk.2.ssm_a"].data().tolist() == pytest.approx(decay, rel=1e-6)
    assert (found["blk.2.ssm_dt.bias"].data() == as_float32(given[at + "dt_bias"])).all()
    assert (found["blk.2.ssm_norm.weight"].data() == as_float32(given[at + "norm.weight"])).all()
    norm = as_float32(given["model.layers.2.post_attention_layernorm.weight"])
    assert (found["blk.2.post_attention_norm.weight"].data() == norm + 1).all()
    assert found["blk.3.ffn_gate_inp_shexp.weight"].shape == (48,)


def test_bytes_that_a_token_reads_are_counted_once(tmp_path: Path) -> None:
    job = Job(tmp_path, tmp_path, "int4", 1, 1, 1, 1)
    assert [counted(job, lambda n=n: n) for n in (17, 18)] == [17, 17]


def test_ratios_are_medians_of_each_rounds_own() -> None:
    ours = result("pio int4", "int4", decode=[60.0, 10.0, 90.0], start=[1.0, 1.0, 4.0])
    theirs = result("openvino int4", "int4", decode=[30.0, 20.0, 30.0], start=[3.0, 2.0, 4.0])
    assert report.ratios(ours, theirs) == {"decode": 2.0, "start": 2.0}


def test_share_of_the_bandwidth_is_that_around_each_answer() -> None:
    found = report.medians(result("pio int4", "int4", decode=[40.0, 20.0, 30.0], bandwidth=[40e9, 10e9, 20e9]))
    assert found == {"decode": 30.0, "bandwidth": 20e9, "bandwidth_share": 0.75}


def test_pio_is_compared_within_a_format_and_never_with_itself() -> None:
    names = [("pio bf16", "bf16"), ("pio int4", "int4"), ("llama.cpp Q4_0", "int4"), ("openvino int8", "int8")]
    pairs = report.compared([result(name, format, decode=[1.0]) for name, format in names])
    assert [(a.contestant.name, b.contestant.name) for a, b, _ in pairs] == [("pio int4", "llama.cpp Q4_0")]


def test_the_report_shows_what_was_measured_and_what_could_not_be() -> None:
    plan = Plan(Path("config.json"), Path("cache"), rounds=2, threads=3)
    results = [
        result("pio int4", "int4", prefill=[900.0, 1000.0], decode=[60.0, 62.0], bandwidth=[30e9, 31e9]),
        result("openvino int4", "int4", prefill=[500.0, 450.0], decode=[30.0, 31.0], bandwidth=[20e9, 31e9]),
    ]
    text = report.as_text(plan, results, {"onnxruntime int4": "no model"})
    assert re.search(r"^pio int4 +950\.0 +61\.0 +– +– +0\.50 +100% +0\.90$", text, re.MULTILINE)
    assert re.search(r"^pio int4 : openvino int4 +2\.01 +2\.00 +– +–$", text, re.MULTILINE)
    assert "Bandwidth: 30.5 GB/s (20.0 to 31.0)." in text
    assert text.endswith("Left out: onnxruntime int4: no model")
    found = json.loads(json.dumps(report.as_dict(plan, results, {}), default=str))
    assert found["results"][1]["medians"]["prefill"] == 475.0
    assert found["ratios"][0]["other"] == "openvino int4"


def test_a_table_aligns_its_columns() -> None:
    lines = report.table([["name", "a"], ["long name", "1.5"], ["x", "10.25"]]).splitlines()
    assert lines == ["name           a", "----------------", "long name    1.5", "x          10.25"]


def written(path: Path, results: list[Result], **plan: Any) -> str:
    """Write results as ``run --json`` does."""
    made = Plan(Path("models") / "small" / "config.json", Path("cache"), **plan)
    path.write_text(json.dumps(report.as_dict(made, results, {}), default=str), "utf-8")
    return str(path)


def test_a_plot_has_a_bar_for_each_value_and_one_scale_for_each_measure(tmp_path: Path) -> None:
    int4 = [
        result("pio int4<&>", "int4", prefill=[901.0], decode=[60.0, 70.0], start=[1.0]),
        result("openvino int4", "int4", prefill=[451.0], together=[0.4]),
    ]
    int8 = [result("pio int8", "int8", prefill=[300.0], decode=[13.0], together=[37.0])]
    names = [written(tmp_path / "a.json", int4, depth=7), written(tmp_path / "b.json", int8, depth=7)]
    out = tmp_path / "plot.svg"
    assert main(["plot", *names, str(out)]) == 0
    root = ElementTree.parse(out).getroot()
    space = "{http://www.w3.org/2000/svg}"
    bars = [bar.attrib for bar in root.iter(f"{space}rect")]
    lengths: dict[str, list[float]] = {}
    for bar in bars:
        lengths.setdefault(bar["class"], []).append(float(bar["width"]))
    longest = max(float(bar["width"]) for bar in bars)
    for kind, values in {
        "pio prefill": [1.0, 300 / 901],
        "other prefill": [451 / 901],
        "pio decode": [1.0, 13 / 65],
        "other together": [0.4 / 37],
        "pio together": [1.0],
    }.items():
        assert lengths.pop(kind) == pytest.approx([longest * value for value in values], abs=0.01)
    assert not lengths
    words = Counter(text.text for text in root.iter(f"{space}text"))
    assert words.keys() >= {"pio int4<&>", "openvino int4", "int8", "901", "65", "0.4", "prefill of 512", "decode"}
    assert words["–"] == 2 and "small: tokens a second" in str(root.findtext(f"{space}title"))
    boxes = [tuple(float(bar[side]) for side in ("x", "y", "width", "height")) for bar in bars]
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(x + w < width and y + h < height for x, y, w, h in boxes)
    assert len({box[:2] for box in boxes}) == len(boxes)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = [result("pio int4", "int4", decode=[1.0])]
    out = tmp_path / "plot.svg"
    names = [written(tmp_path / "a.json", some, threads=2), written(tmp_path / "b.json", some, threads=3)]
    for given, complaint in (
        (names, "threads differs: 2, 3"),
        ([written(tmp_path / "c.json", [])], "no speeds, expected some of prefill, decode, together"),
        ([str(tmp_path / "none.json")], "No such file"),
    ):
        assert main(["plot", *given, str(out)]) == 2
        assert complaint in capsys.readouterr().err
    assert not out.exists()


def test_layers_are_cut_and_engines_that_know_no_mixtures_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(MOE), "utf-8")
    plan = Plan(path, tmp_path / "cache", layers=1)
    with Sitting(plan, lambda _: None) as sitting:
        sitting.prepare(contestants(["openvino"], ["int8"]))
    (folder,) = (tmp_path / "cache" / "models").iterdir()
    assert json.loads((folder / "source" / "config.json").read_text("utf-8"))["num_hidden_layers"] == 1
    assert sitting.failed == {"openvino int8": "openvino is driven with dense models only"}
    assert "config.json, 1 layers.\n" in report.as_text(plan, [], sitting.failed)
    command = ["run", "--config", str(path), "--cache", str(tmp_path / "cache"), "--engines", "pio", "--layers", "3"]
    assert main(command) == 2
    assert "--layers 3: the config has 2 layers" in capsys.readouterr().err


def test_every_engine_is_pinned_and_has_a_format() -> None:
    for name, peer in PEERS.items():
        assert peer.variants and set(peer.variants) <= set(FORMATS), name
        assert all("==" in package for package in peer.packages), name
    everyone = contestants(list(PEERS), list(FORMATS))
    assert len({contestant.name for contestant in everyone}) == len(everyone)
    with pytest.raises(ValueError, match="'vllm': expected one of pio, llama"):
        contestants(["vllm"], ["int4"])


def test_an_environment_is_ready_when_it_holds_what_is_asked_for(tmp_path: Path) -> None:
    assert is_ready(tmp_path, "pio") and not is_ready(tmp_path, "openvino")
    assert python_of(tmp_path, "openvino").is_relative_to(tmp_path)
    assert not python_of(tmp_path, "pio").is_relative_to(tmp_path)


@pytest.mark.parametrize("config", ALL)
def test_a_worker_answers_and_says_what_failed(config: dict[str, Any], tmp_path: Path) -> None:
    folder = made(tmp_path / "model", config)
    worker = Worker(python_of(tmp_path, "pio"), "benchmarks.peers.pio", tmp_path / "logs" / "pio.log", 1)
    job = {"source": folder, "converted": tmp_path / "c", "variant": "bf16"}
    job |= {"threads": 1, "sequences": 3, "context": 40, "shared_context": 20}
    (tmp_path / "c").mkdir()
    experts = config["num_hidden_layers"] * 5 * 3 * 48 * 24 if config is not CONFIG else 0
    table = 307 * 48 if config is not CONFIG else 0  # of which a token takes a row
    stored = sum(math.prod(shape) for _, shape in shapes(config))
    read = 2 * (stored - experts * 3 // 5 - table + table // 307)
    try:
        assert worker.request("load", job=job)["weights"] == pytest.approx(read, rel=0.05)  # little is kept in float32
        seconds = worker.request("generate", prompts=[[1, 2], [3, 4], [5, 6]], new_tokens=5)["seconds"]
        assert len(seconds) == 5 and seconds == sorted(seconds)
        assert worker.peak_memory() > 1 << 20 and worker.cpu_seconds() > 0
        with pytest.raises(PeerError, match=r"pio: CheckpointError: .*; see .*pio\.log"):
            worker.request("load", job=job | {"source": tmp_path / "nothing"})
    finally:
        worker.close()
        worker.close()


def test_a_worker_that_ends_is_an_error(tmp_path: Path) -> None:
    worker = Worker(python_of(tmp_path, "pio"), "benchmarks.peers.nothing", tmp_path / "log", 1)
    with pytest.raises(PeerError, match=r"nothing: ended with status 1; see .*log"):
        worker.request("load", job={})
    worker.close()
    assert "No module named benchmarks.peers.nothing" in (tmp_path / "log").read_text("utf-8")
