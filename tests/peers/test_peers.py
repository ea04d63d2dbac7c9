"""The comparison with other engines, as far as it needs none of them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any
from xml.etree import ElementTree

import pytest
from peer_models import ALL, CONFIG, MOE, made

from benchmarks.peers import report
from benchmarks.peers.__main__ import main
from benchmarks.peers.catalogue import FORMATS, PEERS, Contestant, contestants
from benchmarks.peers.environments import is_ready, python_of
from benchmarks.peers.process import PeerError, Worker
from benchmarks.peers.rounds import Plan, Result, Sitting
from benchmarks.peers.shapes import shapes
from benchmarks.peers.worker import Job, counted


def result(name: str, format: str, **rounds: list[float]) -> Result:
    engine, variant = name.split()
    return Result(Contestant(engine, format, variant), "1.2", 500_000_000, 900_000_000, rounds)


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
    assert "disk" not in report.as_text(plan, results, {})
    results[1].pages_read = 7
    text = report.as_text(plan, results, {"onnxruntime int4": "no model"})
    assert re.search(r"^pio int4 +950\.0 +61\.0 +– +– +0\.50 +100% +0\.90$", text, re.MULTILINE)
    assert re.search(r"^pio int4 : openvino int4 +2\.01 +2\.00 +– +–$", text, re.MULTILINE)
    assert "Bandwidth: 30.5 GB/s (20.0 to 31.0)." in text
    assert "Waited for the disk most often: openvino int4, 7 times." in text
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
    chosen = contestants(["pio", "llama.cpp"], ["int4"], ["Q4_0", "int4-uniform"])
    assert [contestant.name for contestant in chosen] == ["pio int4-uniform", "llama.cpp Q4_0"]
    with pytest.raises(ValueError, match="'Q8_0': expected one of int4, int4-uniform, Q4_0"):
        contestants(["pio", "llama.cpp"], ["int4"], ["Q8_0"])


def test_an_environment_is_ready_when_it_holds_what_is_asked_for(tmp_path: Path) -> None:
    assert is_ready(tmp_path, "pio") and not is_ready(tmp_path, "openvino")
    assert python_of(tmp_path, "openvino").is_relative_to(tmp_path)
    assert not python_of(tmp_path, "pio").is_relative_to(tmp_path)


@pytest.mark.parametrize("config", ALL)
def test_a_worker_answers_and_says_what_failed(config: dict[str, Any], tmp_path: Path) -> None:
    folder = made(tmp_path / "model", config)
    before = getrusage(RUSAGE_CHILDREN).ru_majflt
    worker = Worker(python_of(tmp_path, "pio"), "benchmarks.peers.pio", tmp_path / "logs" / "pio.log", 1)
    job = {"source": folder, "converted": tmp_path / "c", "variant": "bf16"}
    job |= {"threads": 1, "sequences": 3, "context": 40, "shared_context": 20}
    (tmp_path / "c").mkdir()
    sizes = {name: math.prod(shape) for name, shape in shapes(config).items()}
    experts = sum(size for name, size in sizes.items() if ".experts." in name)
    table = 307 * 48 if config is not CONFIG else 0  # of which a token takes a row
    stored = sum(sizes.values())
    read = 2 * (stored - experts * 3 // 5 - table + table // 307)
    try:
        assert worker.request("load", job=job)["weights"] == pytest.approx(read, rel=0.05)  # little is kept in float32
        seconds = worker.request("generate", prompts=[[1, 2], [3, 4], [5, 6]], new_tokens=5)["seconds"]
        assert len(seconds) == 5 and seconds == sorted(seconds)
        assert worker.peak_memory() > 1 << 20 and worker.cpu_seconds() > 0
        waited = worker.pages_read()
        with pytest.raises(PeerError, match=r"pio: CheckpointError: .*; see .*pio\.log"):
            worker.request("load", job=job | {"source": tmp_path / "nothing"})
    finally:
        worker.close()
        worker.close()
    assert 0 <= waited <= getrusage(RUSAGE_CHILDREN).ru_majflt - before  # there are far more that wait for no disk


def test_a_worker_that_ends_is_an_error(tmp_path: Path) -> None:
    worker = Worker(python_of(tmp_path, "pio"), "benchmarks.peers.nothing", tmp_path / "log", 1)
    with pytest.raises(PeerError, match=r"nothing: ended with status 1; see .*log"):
        worker.request("load", job={})
    worker.close()
    assert "No module named benchmarks.peers.nothing" in (tmp_path / "log").read_text("utf-8")
