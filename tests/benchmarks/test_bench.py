import json
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from numba.core import config
from processes import wait_for_end
from typer.testing import CliRunner

import pio
from pio import machine
from pio.benchmarks import callers
from pio.benchmarks.busy import busy
from pio.benchmarks.copying import edited
from pio.benchmarks.measure import cache_per_token, operations_per_token, weights_per_token
from pio.benchmarks.random_model import RandomWeights, cut, random_model
from pio.benchmarks.report import Plan
from pio.cli.app import make_app
from pio.cli.warmup import SEEING, TINY
from pio.dtypes import bfloat16, float32
from pio.errors import CheckpointError, OutOfMemoryError

QWEN = {"model_type": "qwen3", **TINY}
QUICK = ("--rounds", "2", "--new-tokens", "4", "--prompt-tokens", "21", "--buffer-mb", "2", "--json")
SERIES = ("speed", "operations")
compiled = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="measures compiled kernels")


def bench(*arguments):
    ran = CliRunner().invoke(make_app(), ["bench", *map(str, arguments)])
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def check(report, threads):
    for series in (report["bandwidth"], report["decode"], *(p[k] for p in report["prefill"] for k in SERIES)):
        assert len(series["rounds"]) == 2 and min(series["rounds"]) > 0
        assert series["median"] == median(series["rounds"]) and series["best"] == max(series["rounds"])
    assert report["bytes_per_token"] == report["weights_per_token"] + report["cache_per_token"]
    check_ratio(report["bandwidth_share"], report["decode"], report["bandwidth"], report["bytes_per_token"])
    for prefill in report["prefill"]:
        check_ratio(
            prefill["operations_share"], prefill["speed"], prefill["operations"], prefill["operations_per_token"]
        )
        check_ratio(prefill["against_first"], prefill["speed"], report["prefill"][0]["speed"])
        assert prefill["time_to_first_token"] > 0
    assert report["load_seconds"] > 0
    assert report["peak_memory"] > report["weights_bytes"]
    assert report["memory_bound"] == int(1.08 * (report["weights_bytes"] + report["cache_bytes"])) + 200_000_000
    assert report["threads"] == threads


def check_ratio(found, some, others, factor=1.0):
    rounds = zip(some["rounds"], others["rounds"], strict=True)
    assert found == pytest.approx(median(factor * a / b for a, b in rounds))


@compiled
def test_the_demo_model():
    report = json.loads(bench(*QUICK, "--threads", 1))
    check(report, threads=1)
    assert report["weights_per_token"] == report["weights_bytes"]  # tied: the table is the head
    assert (report["depth"], report["new_tokens"], report["sequences"]) == (32, 4, 1)
    assert [prefill["prompt_tokens"] for prefill in report["prefill"]] == [21]
    assert report["formats"] == {"layers": "bfloat16", "tables": "bfloat16"}
    assert (report["busy"], report["busy_decode"], report["busy_keeps"]) == (0, None, None)


@compiled
def test_long_contexts_several_sequences_and_a_busy_neighbour(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**QWEN, "max_position_embeddings": 9000}), "utf-8")
    options = ("--config", tmp_path, *QUICK[:-1], "--prompt-tokens", 8195, "--sequences", 17)
    report = json.loads(bench(*options, "--depth", 13, "--busy", 1, "--threads", 2, "--json"))
    check(report, threads=2)
    assert [prefill["prompt_tokens"] for prefill in report["prefill"]] == [21, 8195]
    assert (report["depth"], report["sequences"], report["busy"]) == (13, 17, 1)
    assert report["weights_per_token"] == report["weights_bytes"] / 17
    assert len(report["busy_decode"]["rounds"]) == 2 and min(report["busy_decode"]["rounds"]) > 0
    check_ratio(report["busy_keeps"], report["busy_decode"], report["decode"])
    shown = bench(*options, "--depth", 15, "--busy", 2)
    for words in ("17 sequences together, 4 tokens after 15", "beside 2 busy processes", "against 21 tokens", "keeps"):
        assert words in shown


@compiled
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_random_weights_of_a_config(tmp_path, dtype):
    (tmp_path / "config.json").write_text(json.dumps({**QWEN, "dtype": "float16"}), "utf-8")
    options = ("--dtype", dtype) if dtype == "float32" else ()
    report = json.loads(bench("--config", tmp_path / "config.json", *QUICK, "--threads", 2, *options))
    check(report, threads=2)
    assert report["formats"] == {"layers": dtype, "tables": dtype} and "random weights" in report["model"]


@compiled
@pytest.mark.parametrize(
    ("options", "arithmetic"),
    [
        ((), "float32"),
        (("--activation-dtype", "bfloat16"), "bfloat16"),
        (("--activation-dtype", "bfloat16", "--dtype", "float16"), "float32"),
        (("--profile", "performance", "--quantize", "int8"), "int8"),
    ],
)
def test_what_prefill_is_held_against(options, arithmetic):
    report = json.loads(bench(*QUICK, "--threads", 1, *options))
    check(report, threads=1)
    assert report["arithmetic"] == arithmetic


@compiled
def test_the_table():
    shown = bench(*QUICK[:-1])
    for words in ("read bandwidth", "share of bandwidth", "share of float32 peak", "peak memory", "tok/s", "GB/s"):
        assert words in shown


def test_a_model_or_a_config(tmp_path):
    for model in ("org/name", "demo"):
        ran = CliRunner().invoke(make_app(), ["bench", model, "--config", str(tmp_path)])
        assert ran.exit_code == 1 and "one of the two" in ran.stderr
    ran = CliRunner().invoke(make_app(), ["bench", "--config", str(tmp_path)])
    assert ran.exit_code == 1 and f"{tmp_path} is empty" in ran.stderr


def test_what_a_token_reads_and_computes():
    wide = {**QWEN, "tie_word_embeddings": False}
    hidden, mlp, vocab, heads, kv, dim, layers = 72, 136, 519, 4, 2, 24, 2
    matrices = layers * (hidden * dim * 2 * (heads + kv) + 3 * hidden * mlp)
    vectors = layers * (2 * hidden + 2 * dim) + hidden
    for raw, tables in ((QWEN, 1), (wide, 2)):
        with random_model(raw, dtype="float32", context_length=64) as model:
            whole = 4 * (matrices + vectors + tables * vocab * hidden)
            assert model.loaded.memory["weights"] == whole
            assert weights_per_token(model) == whole - (4 * (vocab - 1) * hidden if tables == 2 else 0)
            shared = 4 * (matrices + vectors + vocab * hidden) / 3  # and of an untied embedding a row for each sequence
            assert weights_per_token(model, 3) == pytest.approx(shared + (4 * hidden if tables == 2 else 0))
            attention = [4 * layers * heads * dim * (position + 1) for position in range(10)]
            once = 3 * hidden * mlp + vocab * hidden  # in the last layer and behind it only the last token counts
            expected = 2 * (matrices + vectors) + sum(attention) / 10 + 2 * (once / 10 - 3 * hidden * mlp)
            assert operations_per_token(model, 10) == pytest.approx(expected)


@pytest.mark.parametrize(("kind", "key", "value"), [("float32", 4 * 24, 4 * 32), ("float16", 2 * 24, 2 * 32)])
def test_what_a_token_reads_of_the_cache(kind, key, value):
    layers, kv, plan = 2, 2, Plan(depth=37, new_tokens=5)
    windowed = {**QWEN, "use_sliding_window": True, "sliding_window": 39, "max_window_layers": 1}
    with random_model(QWEN, context_length=64, kv_cache_dtype=kind) as model:  # values in whole vectors of sixteen
        assert cache_per_token(model, plan) == layers * kv * (key + value) * (38 + 39 + 40 + 41) / 4
    with random_model(windowed, context_length=64, kv_cache_dtype=kind) as model:
        assert cache_per_token(model, plan) == kv * (key + value) * (38 + 39 + 40 + 41 + 38 + 3 * 39) / 4


def test_what_a_token_moves_of_states():
    raw = {**QWEN, "model_type": "qwen3_next", "layer_types": ["linear_attention", "full_attention"]}
    raw |= {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "mlp_only_layers": [0]}
    raw |= {"shared_expert_intermediate_size": 56, "linear_conv_kernel_dim": 3, "partial_rotary_factor": 0.5}
    raw |= {"linear_num_key_heads": 3, "linear_num_value_heads": 6}
    raw |= {"linear_key_head_dim": 20, "linear_value_head_dim": 48}
    inputs, state = 2 * (2 * 3 * 20 + 6 * 48), 6 * 20 * 64  # of two tokens before; columns in slices of 32
    with random_model(raw, context_length=64, kv_cache_dtype="float32", max_batch_sequences=4) as model:
        found = cache_per_token(model, Plan(depth=37, new_tokens=5))
    keys_and_values = 4 * 2 * (24 + 32)  # of a token, in the one layer that attends
    assert found == keys_and_values * (38 + 39 + 40 + 41) / 4 + 2 * 4 * (inputs + state)


def test_the_cache_of_bytes_counts_its_scales():
    with random_model(QWEN, context_length=64, kv_cache_dtype="int8") as model:
        found = cache_per_token(model, Plan(depth=99, new_tokens=2)) / 100
        assert 2 * 2 * (24 + 32) < found <= 2 * 2 * (64 + 32 + 16)  # keys fill whole groups
        assert found == model.loaded.cache.nbytes / 64


def test_a_plan_is_cut_to_the_context():
    plan = Plan(prompt_tokens=(512, 8192), depth=8192, new_tokens=64)
    assert plan.context == 8192 + 64 and plan.fitted(10_000) == plan
    cut = plan.fitted(100)
    assert (cut.prompt_tokens, cut.depth, cut.new_tokens) == ((99, 99), 50, 50)
    assert cut.fitted(100) == cut and cut.context == 100
    assert Plan().fitted(64) == Plan(prompt_tokens=(63,), depth=32, new_tokens=32)


def test_prompts_that_would_wait_for_each_other_are_refused():
    ran = CliRunner().invoke(make_app(), ["bench", "--sequences", "8", "--depth", "33"])
    assert ran.exit_code == 1 and "the prompts have 264 tokens and a step reads 256" in " ".join(ran.stderr.split())


def test_busy_processes_end_with_what_they_disturb():
    with pytest.raises(KeyboardInterrupt), busy(3) as processes:
        for process in processes:
            with pytest.raises(TimeoutError):
                wait_for_end(process, 0)
        raise KeyboardInterrupt
    assert len(processes) == 3
    for process in processes:
        wait_for_end(process, 0)


def test_a_busy_process_ends_after_its_starter_was_killed():
    code = "import os\nfrom pio.benchmarks.busy import busy\nwith busy(1) as p: print(p[0], flush=True); os._exit(0)"
    starter = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wait_for_end(int(starter.stdout), 60)


def test_random_weights_are_random_and_the_same_again():
    one, two = RandomWeights(float32, seed=3), RandomWeights(float32, seed=3)
    shapes = {"a": (301, 257), "b": (5, 257), "norm": (33,)}
    first = {name: one.take(name, shape).tolist() for name, shape in shapes.items()}
    assert first == {name: two.take(name, shape).tolist() for name, shape in shapes.items()}
    assert first["norm"] == [1.0] * 33
    flat = [v for row in first["a"] for v in row]
    assert len(flat) == 301 * 257 and first["a"][0] != first["a"][255]
    variance = sum(v * v for v in flat) / len(flat)
    assert variance == pytest.approx(1 / 257, rel=0.05) and abs(sum(flat)) / len(flat) < 0.01 / 257**0.5 * 5
    assert one.nbytes == 4 * (301 * 257 + 5 * 257 + 33) and one.used == set(shapes)
    assert one.take("bias", (3,), optional=True) is None and "bias" not in one
    one.check_finite("a")
    one.take("b", (5, 257))[2:3, 1:2].fill_(float("nan"))
    with pytest.raises(CheckpointError, match="b holds NaN"):
        one.check_finite("b")


def test_random_weights_do_not_overlap():
    weights = RandomWeights(bfloat16)
    made = [weights.take(str(i), (random.Random(i).randint(1, 900), 7 + i)) for i in range(40)]
    spans = sorted((t.address, t.address + t.nbytes) for t in made)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert all(t.address % 64 == 0 for t in made)


def test_too_large_for_this_machine(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 1000)
    with pytest.raises(OutOfMemoryError, match=r"random weights .* 1000 bytes free"), random_model(QWEN):
        pass


def test_the_model_is_gone_afterwards():
    with random_model(QWEN, context_length=64) as model:
        assert model.is_loaded and model.path is not None
        folder = Path(model.path)
    assert not model.is_loaded and not folder.exists()


def test_files_beside_the_config_are_the_models():
    tokenizer = [Path(pio.__file__).parent / "demo" / name for name in ("tokenizer.json", "tokenizer_config.json")]
    with random_model({**QWEN, "vocab_size": 4099}, beside=tokenizer, context_length=64) as model:
        assert model.detokenize(model.tokenize("def grüß(x):")) == "def grüß(x):"
        answer = model.generate("def ", response_format="regex:[a-z]{4,9}", max_new_tokens=16, seed=1)
        assert 4 <= len(answer.parsed) <= 9


@compiled
def test_pictures(tmp_path):
    raw = {"model_type": "qwen3_vl", **SEEING, "dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(raw), "utf-8")
    options = ("--config", tmp_path, *QUICK[:-1], "--threads", 1, "--image", "300x200", "--image", "1X1")
    report = json.loads(bench(*options, "--json", "--quantize", "int8"))
    check(report, threads=1)
    assert report["tower_arithmetic"] == "int8" and report["formats"]["tower"] == "int8" and not report["workloads"]
    sizes = [(p["width"], p["height"], p["seen_width"], p["seen_height"], p["tokens"]) for p in report["pictures"]]
    assert sizes == [(300, 200, 320, 224, 70), (1, 1, 256, 256, 64)]
    for picture in report["pictures"]:
        assert picture["prompt_tokens"] == picture["tokens"] + 32
        assert 0 < picture["encode"] < picture["time_to_first_token"]
        assert 0 < picture["prefill"] < picture["time_to_first_token"]
        assert picture["decode"] > 0 and picture["prepare"] > 0
        assert picture["operations_per_picture"] > 0 and len(picture["operations"]["rounds"]) == 2
        assert picture["operations_share"] > 0 and picture["peak_memory"] > report["weights_bytes"]
    shown = bench(*options)
    for words in ("Pictures, by a tower in bfloat16", "float32 peak", "300 x 200", "320 x 224"):
        assert words in shown


@compiled
def test_a_copy_with_edits():
    options = ("demo", "--rounds", 2, "--new-tokens", 300, "--copy", 50, "--buffer-mb", 2, "--prompt-tokens", 21)
    report = json.loads(bench(*options, "--max-draft-tokens", 7, "--json"))
    found = report["copying"]
    assert (found["new_tokens"], found["edits_every"], found["equal"]) == (300, 50, 1)
    for series in (found["plain"], found["drafted"]):
        assert len(series["rounds"]) == 2 and min(series["rounds"]) > 0
    check_ratio(found["times_as_fast"], found["drafted"], found["plain"])
    assert found["accepted_tokens"] <= found["drafted_tokens"] <= 7 * found["checks"]
    assert not report["workloads"]
    shown = bench(*options, "--sequences", 2)
    for words in ("A copy with edits", "times as fast", "300 tokens, an edit every 50", "of 2"):
        assert words in shown
    assert json.loads(bench("demo", *QUICK))["copying"] is None


def test_edits_come_as_often_as_they_are_said_to():
    text = list(range(10_000))
    copy = edited(text, 20, 4096)
    kept = set(copy) & set(text)
    assert 9_000 < len(kept) < 10_000 and abs(len(copy) - len(text)) < 200
    assert copy == edited(text, 20, 4096)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-draft-tokens", "7"), "nothing is drafted but with --copy"),
        (("--copy", "9"), "this model drafts no tokens"),
    ],
)
def test_copies_that_cannot_be_measured(arguments, words, monkeypatch):
    monkeypatch.setattr("pio.plugin.assembly.tentative_tokens", lambda cache: 0)
    ran = CliRunner().invoke(make_app(), ["bench", *arguments, "--buffer-mb", "2", "--new-tokens", "4"])
    assert ran.exit_code == 1 and words in " ".join(ran.stderr.split())


def test_many_callers(monkeypatch):
    monkeypatch.setattr(callers, "WATCHED", 12)
    with pio.load("demo", prefix_cache=False) as model:
        found = callers.measure_callers(model, threads=3, requests=7)
        assert model.stats().running == model.stats().waiting == 0, "the long prompts end with what they disturb"
        answers = 7 + 7 + 2 + 5 + 1
        assert model.stats().finished >= answers and model.stats().dropped >= 1
    assert (found.requests, found.threads, found.loops, found.equal) == (7, 3, 2, 7)
    assert (found.long_prompt, found.short_prompt) == (2047, 20)  # the demo's context
    assert found.tokens >= 7 * 24
    for seconds in ("one_by_one", "at_once", "step", "chunk", "first_token", "silence", "silence_p99"):
        assert getattr(found, seconds) > 0, seconds
    assert found.silence <= found.silence_p99


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo", "--image", "64x64"), "demo reads text alone"),
        (("demo", "--image", "64"), "expected width and height"),
        (("demo", "--image", "99999x99999"), "the largest has"),
        (("demo", "--image", "0x7"), "expected width and height"),
    ],
)
def test_pictures_that_cannot_be_measured(arguments, words):
    ran = CliRunner().invoke(make_app(), ["bench", *arguments])
    assert ran.exit_code == 1 and words in " ".join(ran.stderr.split())


def test_a_tower_is_read_for_no_token():
    raw = {"model_type": "qwen3_vl", **SEEING}
    vision = SEEING["vision_config"]
    with random_model({**QWEN, "rope_theta": 10000.0}, dtype="float32", context_length=64) as model:
        text, work = weights_per_token(model), operations_per_token(model, 10)
    with random_model(raw, dtype="float32", context_length=64) as model:
        assert weights_per_token(model) == text and operations_per_token(model, 10) == work
        encoder = model.loaded.model.encoder
        assert encoder.nbytes == 4 * model.loaded.config.tower_parameters
        assert cut(raw, 1)["vision_config"] == {**vision, "deepstack_visual_indexes": []}
        assert cut(raw, 1)["text_config"]["num_hidden_layers"] == 1
