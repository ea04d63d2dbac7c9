"""Models that see, as far as comparing them needs no other engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import pstdev
from typing import Any

import pytest
from peer_models import CONFIG, VISION, made, write_sight

from benchmarks.peers import checkpoint, report, sights
from benchmarks.peers.__main__ import main
from benchmarks.peers.catalogue import Contestant
from benchmarks.peers.process import PeerError, Worker
from benchmarks.peers.rounds import Plan, Result, Sitting
from benchmarks.peers.shapes import shapes
from pio.loading.safetensors import SafetensorsFile

INT8 = Contestant("pio", "int8", "int8")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config.json with all that a model that sees needs beside it."""
    path = write_sight(tmp_path / "published") / "config.json"
    path.write_text(json.dumps(VISION), "utf-8")
    return path


def plan_of(config: Path, **options: Any) -> Plan:
    return Plan(config, config.parents[1] / "cache", rounds=1, pictures=("70x41", "33x90"), **options)


def test_the_tower_has_the_published_shapes() -> None:
    found = shapes(VISION)
    assert found["model.visual.patch_embed.proj.weight"] == (24, 3, 2, 8, 8)
    assert found["model.visual.blocks.1.attn.qkv.weight"] == (72, 24)
    assert found["model.visual.merger.norm.weight"] == (24,)
    assert found["model.visual.deepstack_merger_list.0.norm.weight"] == (96,)
    assert found["model.visual.deepstack_merger_list.0.linear_fc2.weight"] == (48, 96)
    assert found["model.language_model.embed_tokens.weight"] == (307, 48)


def test_a_model_that_sees_is_written_with_what_lies_beside_its_config(config: Path) -> None:
    folder = checkpoint.write_checkpoint(config.parents[1] / "model", VISION, config.parent)
    for name in (*checkpoint.TOKENIZER, *checkpoint.SIGHT):
        assert (folder / name).read_bytes() == (config.parent / name).read_bytes()
    assert checkpoint.name_of(VISION, 0).startswith("qwen3_vl-48x3-")


def test_a_model_that_sees_is_refused_where_files_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("chat_template.jinja, preprocessor_config.json, video_pre")):
        made(tmp_path / "model", VISION)
    assert not (tmp_path / "model").exists()


def test_a_kernel_of_patches_keeps_the_size_of_what_it_multiplies(tmp_path: Path) -> None:
    folder = checkpoint.write_checkpoint(tmp_path / "model", VISION, write_sight(tmp_path))
    kernel = SafetensorsFile(folder / "model.safetensors").tensor("model.visual.patch_embed.proj.weight")
    numbers = kernel.astype("float32").reshape(-1).tolist()
    assert pstdev(numbers) == pytest.approx(384**-0.5, rel=0.1)


@pytest.mark.parametrize("text", ["", "512", "0x4", "4x", "-4x4", "100000x1", "4X4", "4x4x4"])
def test_what_is_no_size_of_a_picture_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r}: expected width and height")):
        sights.size_of(text)


def test_context_has_room_for_the_largest_picture() -> None:
    assert sights.context_of(("70x41", "33x90"), VISION) == sights.TEXT_TOKENS + 4 * 7


def test_each_round_has_a_picture_of_its_own(tmp_path: Path) -> None:
    from PIL import Image

    files = [sights.write_picture(tmp_path / f"{seed}.png", "70x41", seed) for seed in ("0 1", "0 2")]
    again = sights.write_picture(tmp_path / "again.png", "70x41", "0 1")
    assert files[0].read_bytes() == again.read_bytes() != files[1].read_bytes()
    with Image.open(again) as picture:
        assert (picture.size, picture.mode) == ((70, 41), "RGB")


@pytest.fixture
def sitting(config: Path) -> Iterator[Sitting]:
    with Sitting(plan_of(config, threads=1), lambda _: None) as made:
        yield made


def test_pio_looks_at_pictures_in_rounds(sitting: Sitting) -> None:
    bf16 = Contestant("pio", "bf16", "bf16")
    sitting.prepare([bf16, Contestant("pio", "bf16", "bf16-float32")])
    assert not sitting.failed
    one, other = sitting.run()
    assert one.tokens == other.tokens and one.tokens["70x41"] > 40
    assert one.rounds.keys() == other.rounds.keys() == {f"{k} {s}" for k in ("picture", "encode") for s in one.tokens}
    for size in ("70x41", "33x90"):
        (seconds,), (encode,) = one.rounds[f"picture {size}"], one.rounds[f"encode {size}"]
        assert 0 < encode < seconds


def test_engines_that_do_not_see_are_left_out(sitting: Sitting) -> None:
    sitting.prepare([Contestant("onnxruntime", "int8", "int8")])
    assert sitting.failed == {"onnxruntime int8": "onnxruntime is driven with models of text only"}


def test_an_engine_that_sees_another_number_of_tokens_is_left_out(
    sitting: Sitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Worker.request
    seen = 0

    def count(worker: Worker, do: str, **arguments: Any) -> dict[str, Any]:
        nonlocal seen
        reply = request(worker, do, **arguments)
        seen += do == "see"
        return reply | {"tokens": reply["tokens"] + 1} if do == "see" and seen > 2 else reply

    monkeypatch.setattr(Worker, "request", count)
    bf16, other = Contestant("pio", "bf16", "bf16"), Contestant("pio", "bf16", "bf16-float32")
    sitting.prepare([bf16, other])
    tokens = sitting.results[0].tokens["70x41"]
    assert [result.contestant for result in sitting.results] == [bf16]
    expected = f"70x41 and the question are {tokens + 1} tokens and not the {tokens} of pio bf16"
    assert sitting.failed == {other.name: expected}


def test_pictures_are_for_models_that_see(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "config.json"
    text.write_text(json.dumps(CONFIG), "utf-8")
    command = ["run", "--cache", str(tmp_path / "cache"), "--engines", "pio", "--config"]
    for given in ([str(config)], [str(text), "--picture", "32x32"]):
        assert main([*command, *given]) == 2
        assert "--picture: expected a size where a model sees" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, str(config), "--picture", "32x32,big"])
    assert "--picture 'big': expected width and height" in capsys.readouterr().err


def test_layers_of_the_decoder_are_cut(config: Path) -> None:
    with Sitting(plan_of(config, layers=2), lambda _: None):
        pass
    (folder,) = (config.parents[1] / "cache" / "models").iterdir()
    written = json.loads((folder / "source" / "config.json").read_text("utf-8"))
    assert written["text_config"]["num_hidden_layers"] == 2 and written["vision_config"] == VISION["vision_config"]


def test_the_report_shows_seconds_of_pictures(config: Path) -> None:
    def result(name: str, **rounds: list[float]) -> Result:
        engine, variant = name.split()
        kept = {f"{kind} 70x41": values for kind, values in rounds.items()}
        return Result(Contestant(engine, "int8", variant), "1", 500_000_000, 900_000_000, kept, tokens={"70x41": 60})

    plan = plan_of(config)
    results = [
        result("pio int8", picture=[1.0, 2.0, 3.0], encode=[0.5, 0.75, 1.0]),
        result("openvino int8", picture=[3.0, 3.0, 3.0], encode=[1.0, 1.0, 1.0]),
    ]
    assert report.ratios(*results) == {"picture 70x41": 1.5, "encode 70x41": pytest.approx(4 / 3)}
    text = report.as_text(plan, results, {})
    assert "Tokens of picture and question: 60 of 70x41." in text
    assert re.search(r"^weights +picture 70x41 +encode 70x41 +picture 33x90 +encode 33x90 +GB +share", text, re.M)
    assert re.search(r"^pio int8 +2\.00 +0\.75 +– +– +0\.50 +– +0\.90$", text, re.MULTILINE)
    assert re.search(r"^pio int8 : openvino int8 +1\.50 +1\.33 +– +–$", text, re.MULTILINE)


def test_what_an_engine_cannot_do_is_told(sitting: Sitting) -> None:
    process = sitting._worker(INT8, "benchmarks.peers.memory")
    with pytest.raises(PeerError, match="memory: AttributeError: 'Reader' object has no attribute 'see'"):
        process.request("see", picture="x.png", text="?")
