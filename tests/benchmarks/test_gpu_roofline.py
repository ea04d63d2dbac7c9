"""A decoded token on paper: launches and bytes are those of recorded steps, times those that one counts by hand."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from decode_steps import CUT, decoding, plain, small
from numba.core import config

from pio.benchmarks import gpu_roofline
from pio.benchmarks.gpu.attention_launches import runs_of
from pio.benchmarks.gpu.cards import CARDS, Card, card
from pio.benchmarks.gpu.decode_step import DecodeStep, Held
from pio.benchmarks.gpu.kernel_table import Taken, taken
from pio.benchmarks.gpu.launch import Launch
from pio.benchmarks.gpu.linear_launches import experts, linears, quantizing
from pio.benchmarks.gpu.published import PUBLISHED, USUAL
from pio.benchmarks.gpu.token_time import Assumed, TokenTime, fits
from pio.benchmarks.measure import cache_per_token, weights_per_token
from pio.benchmarks.report import Plan
from pio.errors import CheckpointError, ConfigError
from pio.kernels.job_list import CompiledJobs

CHECKPOINTS = Path(__file__).parents[3] / "shared" / "checkpoints"
FOLDERS = dict(
    zip(
        PUBLISHED,
        ("qwen3-0.6b", "qwen3-4b-instruct-2507", "qwen3-coder-30b-a3b-instruct", "qwen3-coder-next", "glm-4.7-flash"),
        strict=True,
    )
)
compiled = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="looks at steps of compiled kernels")


def step(raw, quantize=None, length=300, sms=132):
    return DecodeStep(raw, Held.of("bfloat16", quantize), length, sms)


# What a CPU launches in the place of a kernel that quantizes the rows which it multiplies.
APART = {
    "_linears.quantizing_linears": ("quantize.quantize", "_linears.linears"),
    "experts.quantizing_experts": ("quantize.quantize", "experts.experts_linear"),
    "head_linear.quantizing_heads": ("head_linear.quantize_heads", "head_linear.quantized_head_linear"),
}


def on_a_cpu(kernels):
    """Return how often a CPU runs each kernel, which quantizes and gathers rows by kernels of their own."""
    found = Counter()
    for kernel, count in kernels.items():
        name, bracket, form = kernel.partition("[")
        for each in APART.get(name, (name,)):
            found[plain(f"{each}{bracket}{form}")] += count
        if name == "experts.quantizing_experts":
            found["gather_choices"] += count // 2  # of gate and up, not of down
    return found


@compiled
@pytest.mark.parametrize("quantize", [None, "int4"])
@pytest.mark.parametrize("name", CUT)
def test_launches_and_bytes_are_those_of_a_recorded_step(name, quantize, monkeypatch):
    raw = small(name)
    names = []
    add = CompiledJobs.add
    monkeypatch.setattr(CompiledJobs, "add", lambda self, name, *rest: (names.append(name), add(self, name, *rest))[1])
    with decoding(raw, names, quantize=quantize) as (model, found):
        plan = Plan(depth=299, new_tokens=2)
        weights, cache = weights_per_token(model), cache_per_token(model, plan)
        held = model.loaded.memory["weights"]
    made = step(raw, quantize)
    wanted = on_a_cpu(made.kernels())
    del wanted["sample"]  # chosen behind the step
    assert found == wanted
    moved = sum(x.times * x.nbytes for x in made.launches if x.kernel.startswith(("attention.", "latent_att")))
    moved += sum(x.times * x.nbytes for x in made.launches if x.kernel.startswith(("gated_delta.g", "causal_conv")))
    channels = 2 * 2 * 32 + 4 * 64
    moved -= sum(2 * 4 * channels * x.times for x in made.launches if x.kernel.startswith("causal_conv"))  # its weights
    assert moved == pytest.approx(cache, rel=1e-9)
    assert made.nbytes - moved == pytest.approx(weights, rel=0.02)  # norms and biases are not counted
    assert made.weights_bytes() == pytest.approx(held, rel=0.02)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_are_those_of_the_files(name):
    file = CHECKPOINTS / FOLDERS[name] / "config.json"
    if not file.exists():
        pytest.skip("needs the published config.json")
    there, here = json.loads(file.read_text("utf-8")), PUBLISHED[name]
    alike = {key: value for key, value in here.items() if key != "eos_token_id"}
    assert {key: there.get(key) for key in alike} == alike
    held = Held.of("bfloat16", USUAL[name])
    assert DecodeStep(there, held, 1024, 132).launches == DecodeStep(here, held, 1024, 132).launches


def test_a_kernel_that_fits_so_often():
    made = replace(CARDS["h200"], registers=65_536, shared=228 << 10, threads=2048)
    assert Taken(256, 4, 0, 64, True).resident(made) == 4
    assert Taken(256, 8, 0, 65, True).resident(made) == 3  # a warp's 65 x 32 registers are rounded up to 2304
    assert Taken(128, 4, 90_256, 100, True).resident(made) == 2  # of shared memory
    assert Taken(128, 4, 90_256, 100, True).resident(CARDS["rtx5070"]) == 1
    assert Taken(512, 8, 0, 16, True).resident(CARDS["rtx5070"]) == 3  # of 1536 threads


def test_registers_that_nobody_has_counted_are_as_many_as_may_be():
    known, other = taken("norm.rms_norm[bfloat16]", "sm_90a"), taken("norm.rms_norm[bfloat16]", "sm_75")
    assert known.known and not other.known and other.registers == 65_536 // (other.block * other.blocks) == 64
    assert other.resident(CARDS["h200"]) == other.blocks


MADE = Card("made up", "sm_90a", 4, 1e9, 1e9 / 0.92, 1e9, 1e12, far=1e-6, near=1e-7)  # reads a byte a nanosecond
SWIGLU = taken("activation.swiglu", "sm_90a").resident(MADE)


def launch(**fields):
    return Launch("activation.swiglu", "made up", **fields)


def test_bytes_waits_and_tails():
    blocks = 4 * SWIGLU
    whole = launch(items=3 * blocks, item_bytes=5000, nbytes=15_000 * blocks, far=1, near=2)
    assert whole.blocks(MADE) == blocks and whole.busy(MADE) == 1.0
    assert whole.seconds(MADE) == pytest.approx(15_000 * blocks * 1e-9) == whole.floor(MADE)
    waits = launch(items=3 * blocks, item_bytes=1, far=2, near=3)
    assert waits.seconds(MADE) == pytest.approx(3 * (2e-6 + 3e-7))
    tail = launch(items=blocks + 1, item_bytes=5000, far=1, near=0)
    assert tail.seconds(MADE) == pytest.approx(5000 * blocks * 1e-9 + 5e-6) and tail.busy(MADE) < 0.6
    port = launch(items=1, item_bytes=1e6, near=0)
    assert port.seconds(replace(MADE, bandwidth=1e12)) == pytest.approx(1e6 / 64e9)


@pytest.mark.parametrize(
    ("stretches", "runs", "longest"),
    [
        (1, 1, 1),
        (4, 4, 1),
        (32, 32, 1),
        (33, 33, 1),
        (34, 33, 2),
        (64, 48, 2),
        (65, 49, 2),
        (128, 64, 4),
        (1024, 176, 8),
    ],
)
def test_long_sequences_are_cut_into_runs(stretches, runs, longest):
    assert runs_of(stretches) == (runs, longest)


def test_what_goes_on_beside_the_first_wait_for_memory():
    made = launch(items=4 * SWIGLU + 1, item_bytes=1, far=2, near=3)  # two turns
    for waits in (0, 7, 10):
        assert replace(made, beside=waits).seconds(MADE) == pytest.approx(made.seconds(MADE))
    assert replace(made, beside=15).seconds(MADE) == pytest.approx(made.seconds(MADE) + 2 * 5e-7)
    assert replace(made, beside=15, once=True).seconds(MADE) == pytest.approx(made.seconds(MADE) + 5e-7)


@pytest.mark.parametrize(("k", "waits"), [(1, 2), (1024, 2), (1025, 3), (2048, 3), (4096, 5), (5120, 7)])
def test_a_row_is_quantized_by_rounds_of_two_pairs_a_warp(k, waits):
    assert quantizing(k) == waits


def test_a_row_that_has_no_room_is_quantized_before():
    few, many = (linears("made up", "int4", [64], k) for k in (6144, 6208))
    assert [each.kernel for each in few] == ["_linears.quantizing_linears[int4]"]
    assert [each.kernel for each in many] == ["quantize.quantize[int4]", "_linears.linears[int4]"]
    assert [each.kernel for each in linears("made up", "bfloat16", [64], 64)] == ["_linears.linears[bfloat16]"]
    sorted_first, down = (experts("made up", "int8", 64, 6208, 3, matrices) for matrices in (2, 1))
    assert [each.kernel for each in sorted_first[:2]] == ["quantize.quantize[int8]", "experts.gather_choices"]
    assert [each.items for each in down] == [3 * 13, 6]


def test_products_bound_what_reads_little():
    made = launch(items=4, near=0, products=1e9)
    assert made.seconds(MADE) == pytest.approx(2e9 / (0.62 * 1e12))
    assert replace(made, arithmetic="int8").seconds(MADE) == pytest.approx(1e9 / (0.62 * 1e12))
    assert replace(made, items=1).seconds(MADE) == pytest.approx(8e9 / (0.62 * 1e12))  # one multiprocessor of four


def test_bytes_that_are_under_way():
    made = launch(items=1, flight=512)
    found = made.taken(MADE)
    assert made.in_flight(MADE) == SWIGLU * found.block // 32 * 512
    assert made.needed_in_flight(MADE) == pytest.approx(1e-6 * 1e9 / 4)


def test_sums_hold_what_came_before():
    made, h200 = step(PUBLISHED["Qwen3-4B"]), CARDS["h200"]
    time = TokenTime.of(made, h200, Assumed(gap=1e-6, host=1e-4))
    assert time.floor < time.work < time.graph < time.step
    assert time.graph - time.work == pytest.approx(made.count * 1e-6)
    assert time.step - time.graph == pytest.approx(1e-4)
    assert fits(made, h200) and not fits(step(PUBLISHED["Qwen3-Coder-30B"], "int4"), CARDS["rtx5070"])


def test_the_command(capsys):
    assert gpu_roofline.main(["--gpu", "h200", "--gpu", "rtx5070", "--kernels"]) == 0
    shown = capsys.readouterr().out
    for words in ("Qwen3-0.6B", "does not fit", "RTX 5070", "gated_delta.gated_delta", "in a graph", "resident"):
        assert words in shown
    assert gpu_roofline.main(["--json", "--context", "32768", "--gap", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 15 and all(each["context"] == 32_768 for each in found)
    assert all(each["seconds"]["work"] == each["seconds"]["graph"] for each in found)


def test_a_config_of_ones_own(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(small("Qwen3-0.6B")), "utf-8")
    arguments = ["--config", str(tmp_path / "config.json"), "--quantize", "int8", "--kv-cache-dtype", "float16"]
    assert gpu_roofline.main([*arguments, "--json", "--gpu", "h100"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["format"], found["cache"], found["fits"]) == ("int8", "float16", True)


def test_what_is_refused(tmp_path, capsys):
    assert gpu_roofline.main(["--gpu", "voodoo2"]) == 1 and "h100, h200" in capsys.readouterr().err
    assert gpu_roofline.main(["--quantize", "int3"]) == 1 and "int4_zero_point" in capsys.readouterr().err
    assert gpu_roofline.main(["--config", str(tmp_path / "none.json")]) == 1 and "error:" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu_roofline.main(["--context", "0"])
    with pytest.raises(ConfigError):
        card("")
    with pytest.raises(CheckpointError):
        step({**PUBLISHED["Qwen3-4B"], "hidden_size": "wide"})
