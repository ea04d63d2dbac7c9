import json
import random
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from numba.core import config
from typer.testing import CliRunner

from pio.cli import random_model as random_models
from pio.cli.app import app
from pio.cli.bench_model import bytes_per_token, operations_per_token
from pio.cli.random_model import RandomWeights, random_model
from pio.cli.warmup import TINY
from pio.dtypes import bfloat16, float32
from pio.errors import CheckpointError, OutOfMemoryError

QWEN = {"model_type": "qwen3", **TINY}
QUICK = ("--rounds", "2", "--new-tokens", "4", "--prompt-tokens", "21", "--buffer-mb", "2", "--json")
compiled = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="measures compiled kernels")


def bench(*arguments):
    ran = CliRunner().invoke(app, ["bench", *map(str, arguments)])
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def check(report, threads):
    for name in ("bandwidth", "operations", "decode", "prefill"):
        series = report[name]
        assert len(series["rounds"]) == 2 and min(series["rounds"]) > 0
        assert series["median"] == median(series["rounds"]) and series["best"] == max(series["rounds"])
    for share, work, speed, limit in (
        ("bandwidth_share", "bytes_per_token", "decode", "bandwidth"),
        ("operations_share", "operations_per_token", "prefill", "operations"),
    ):
        rounds = zip(report[speed]["rounds"], report[limit]["rounds"], strict=True)
        assert report[share] == pytest.approx(median(report[work] * done / best for done, best in rounds))
    assert report["time_to_first_token"] > 0 and report["load_seconds"] > 0
    assert report["peak_memory"] > report["weights_bytes"]
    assert report["memory_bound"] == int(1.1 * (report["weights_bytes"] + report["cache_bytes"])) + 250_000_000
    assert report["threads"] == threads


@compiled
def test_the_demo_model():
    report = json.loads(bench(*QUICK, "--threads", 1))
    check(report, threads=1)
    assert report["bytes_per_token"] == report["weights_bytes"]  # tied: the table is the head
    assert (report["prompt_tokens"], report["new_tokens"]) == (21, 4)
    assert report["formats"] == {"layers": "bfloat16", "tables": "bfloat16"}


@compiled
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_random_weights_of_a_config(tmp_path, dtype):
    (tmp_path / "config.json").write_text(json.dumps({**QWEN, "dtype": "float16"}))
    options = ("--dtype", dtype) if dtype == "float32" else ()
    report = json.loads(bench("--config", tmp_path / "config.json", *QUICK, "--threads", 2, *options))
    check(report, threads=2)
    assert report["formats"] == {"layers": dtype, "tables": dtype} and "random weights" in report["model"]


@compiled
def test_the_table():
    shown = bench(*QUICK[:-1])
    for words in ("read bandwidth", "share of bandwidth", "share of float32 peak", "peak memory", "tok/s", "GB/s"):
        assert words in shown


def test_a_model_or_a_config(tmp_path):
    ran = CliRunner().invoke(app, ["bench", "org/name", "--config", str(tmp_path)])
    assert ran.exit_code == 1 and "one of the two" in ran.stderr
    ran = CliRunner().invoke(app, ["bench", "--config", str(tmp_path)])
    assert ran.exit_code == 1 and "config.json" in ran.stderr


def test_what_a_token_reads_and_computes():
    wide = {**QWEN, "tie_word_embeddings": False}
    hidden, mlp, vocab, heads, kv, dim, layers = 72, 136, 519, 4, 2, 24, 2
    matrices = layers * (hidden * dim * 2 * (heads + kv) + 3 * hidden * mlp)
    vectors = layers * (2 * hidden + 2 * dim) + hidden
    for raw, tables in ((QWEN, 1), (wide, 2)):
        with random_model(raw, dtype="float32", context_length=64) as model:
            whole = 4 * (matrices + vectors + tables * vocab * hidden)
            assert model.loaded.memory["weights"] == whole
            assert bytes_per_token(model) == whole - (4 * (vocab - 1) * hidden if tables == 2 else 0)
            attention = [4 * layers * heads * dim * (position + 1) for position in range(10)]
            expected = 2 * (matrices + vectors) + sum(attention) / 10 + 2 * vocab * hidden / 10
            assert operations_per_token(model, 10) == pytest.approx(expected)


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
    monkeypatch.setattr(random_models, "available_memory", lambda: 1000)
    with pytest.raises(OutOfMemoryError, match="1,000 free"), random_model(QWEN):
        pass


def test_the_model_is_gone_afterwards():
    with random_model(QWEN, context_length=64) as model:
        assert model.is_loaded and model.path is not None
        folder = Path(model.path)
    assert not model.is_loaded and not folder.exists()
