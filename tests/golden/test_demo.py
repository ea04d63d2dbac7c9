"""The demo model writes what transformers makes it write, and is as little surprised by unseen text."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
STORED = json.loads((HERE / "demo.json").read_text("utf-8"))
SAMPLES = STORED["samples"]
PROFILES = ("accuracy", "balanced", "performance")


def load(**options: Any) -> Any:
    import pio

    return pio.load("demo", **options)


def nats(model: Any, ids: list[int], targets: list[int]) -> float:
    """Mean negative log-likelihood of each target after the ids before it."""
    losses = []
    for row, target in zip(model.logits(ids).tolist(), targets, strict=True):
        top = max(row)
        losses.append(math.log(math.fsum(math.exp(value - top) for value in row)) + top - row[target])
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("profile", PROFILES)
def test_greedy_text(profile: str) -> None:
    with load(profile=profile) as model:
        for sample in SAMPLES:
            assert list(model.tokenize(sample["prompt"])) == sample["ids"]
            made = model.generate(sample["ids"], temperature=0.0, max_new_tokens=64, ignore_eos=True)
            assert list(made.token_ids) == sample["greedy"], sample["prompt"]
            assert model.detokenize(sample["greedy"]) == sample["text"]


@pytest.mark.parametrize("profile", PROFILES)
def test_last_logits(profile: str) -> None:
    tolerance = {"accuracy": 1e-4, "balanced": 2e-2, "performance": 4e-2}[profile]  # the stored values are about 10
    with load(profile=profile) as model:
        for stored in STORED["last logits"]:
            row = model.logits(stored["ids"]).tolist()[-1]
            found = [row[i] for i in stored["top_ids"]]
            assert found == pytest.approx(stored["top_logits"], abs=tolerance)
            assert math.sqrt(math.fsum(v * v for v in row)) == pytest.approx(stored["norm"], rel=2e-3)
            assert math.fsum(row) / len(row) == pytest.approx(stored["sum"] / len(row), abs=tolerance)


@pytest.mark.parametrize("profile", PROFILES)
def test_held_out_perplexity(profile: str) -> None:
    """Two of the sixty windows; all of them take a minute in pure Python."""
    stored = STORED["held out"]
    width, expected = stored["window"], stored["nats by window"]
    tolerance = 1e-5 if profile == "accuracy" else 1e-3
    with load(profile=profile) as model:
        ids = list(model.tokenize((HERE / "heldout.txt").read_text("utf-8")))
        assert len(ids) == stored["tokens in the text"]
        text = " ".join(map(str, ids))
        assert hashlib.sha256(text.encode()).hexdigest() == stored["sha256 of the token ids"]
        for window in (3, 41):
            start = window * width
            found = nats(model, ids[start : start + width], ids[start + 1 : start + 1 + width])
            assert math.exp(found) == pytest.approx(math.exp(expected[window]), rel=tolerance), f"window {window}"


def test_the_stored_figures_hang_together() -> None:
    stored = STORED["held out"]
    mean = math.fsum(stored["nats by window"]) / len(stored["nats by window"])
    assert mean == pytest.approx(stored["nats"], abs=1e-5)
    assert math.exp(mean) == pytest.approx(stored["perplexity"], abs=1e-3)
    assert all(len(sample["greedy"]) == 64 for sample in SAMPLES)
