"""The golden checkpoints that see cover what README.md here promises, and what is stored of them fits together."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from golden_case import NEW_TOKENS
from vision_case import CASES, FOLDER, RequestAsked, answers, expected_logits, expected_tower, requests
from vision_pictures import MODES, SAMPLES, places, table_value


def config_of(case: str) -> dict[str, Any]:
    return json.loads((FOLDER / case / "config.json").read_text("utf-8"))


def stored(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text("utf-8"))


def merged(grid: list[int], merge: int) -> int:
    """Tokens of one time step."""
    return grid[1] * grid[2] // merge**2


def expanded(request: RequestAsked, config: dict[str, Any]) -> list[int]:
    """The prompt with each mark repeated, a video with its time stamps."""
    merge = config["vision_config"]["spatial_merge_size"]
    grids, videos, ids = iter(request.grids), iter(request.videos), list[int]()
    for token in request.prompt:
        if token == config["image_token_id"]:
            ids += [token] * merged(next(grids), merge)
        elif token == config["video_token_id"]:
            video = next(videos)
            for stamp in video.timestamp_ids:
                ids += [*stamp, config["vision_start_token_id"]]
                ids += [token] * merged(video.grid, merge)
                ids += [config["vision_end_token_id"]]
        else:
            ids.append(token)
    return ids


def placed(request: RequestAsked, config: dict[str, Any]) -> list[tuple[int, int, int]]:
    """The place of each token: text goes on behind the largest place of a picture."""
    merge = config["vision_config"]["spatial_merge_size"]
    marks = (config["image_token_id"], config["video_token_id"])
    grids = {
        marks[0]: iter(request.grids),
        marks[1]: iter([video.grid for video in request.videos for _ in range(video.grid[0])]),
    }
    found: list[tuple[int, int, int]] = []
    following = 0
    for token, group in itertools.groupby(request.ids):
        for _ in group if token not in marks else ():
            found.append((following,) * 3)
            following += 1
        if token in marks:
            _, height, width = next(grids[token])
            sides = (height // merge, width // merge)
            found += [(following, following + y, following + x) for y in range(sides[0]) for x in range(sides[1])]
            following += max(sides)
    return found


def test_the_fixtures_are_small_and_decide() -> None:
    sizes = {case: sum(f.stat().st_size for f in (FOLDER / case).rglob("*") if f.is_file()) for case in CASES}
    assert max(sizes.values()) < 800_000
    assert sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file()) < 5_000_000
    for case in CASES:
        for request in requests(case):
            assert len(request.greedy) == len(request.margins) == NEW_TOKENS
            assert min(request.margins) > 0.02
            assert not set(request.greedy) & set(answers(case)["suppressed"])


@pytest.mark.parametrize("case", CASES)
def test_ids_places_and_tensors_of_a_request_fit_together(case: str) -> None:
    config, tower = config_of(case), expected_tower(case)
    marks = (config["image_token_id"], config["video_token_id"])
    assert len(tower) >= 2
    for request, logits in zip(requests(case), expected_logits(case), strict=True):
        assert request.ids == expanded(request, config)
        assert [list(axis) for axis in zip(*placed(request, config), strict=True)] == request.positions
        assert request.rope_delta == max(map(max, request.positions)) + 1 - len(request.ids)
        assert logits.shape == [len(request.ids), config["text_config"]["vocab_size"]]
        assert all(file.is_file() for file in request.pictures)
        assert all(file.is_file() for video in request.videos for file in video.frames)
        for name, numbers in tower.get(request.index, {}).items():
            count = request.ids.count(marks[name.startswith("video")])
            assert numbers.shape == [count, config["text_config"]["hidden_size"]], name
        levels = len(config["vision_config"]["deepstack_visual_indexes"])
        assert all(f"image.deepstack.{levels}" not in names for names in tower.values())
        kinds = bool(request.grids) + bool(request.videos)
        assert len(tower.get(request.index, {})) in (0, kinds * (1 + levels))


def test_the_fixtures_cover_qwen3_vl() -> None:
    configs = [config_of(case) for case in CASES]
    texts = [config["text_config"] for config in configs]
    towers = [config["vision_config"] for config in configs]
    assert len(CASES) >= 7
    assert {answers(case)["dtype"] for case in CASES} == {"float32", "float16", "bfloat16"}
    assert {len(tower["deepstack_visual_indexes"]) for tower in towers} == {0, 1, 2, 3}
    assert {(tower["patch_size"], tower["spatial_merge_size"]) for tower in towers} == {(8, 2), (14, 3), (16, 2)}
    assert {tower["num_position_embeddings"] for tower in towers} == {16, 36, 49}
    assert {tower["hidden_size"] // tower["num_heads"] for tower in towers} >= {8, 16, 24, 64}
    assert {bool(config["tie_word_embeddings"]) for config in configs} == {True, False}
    assert {"rope_parameters" in text for text in texts} == {"rope_scaling" in text for text in texts} == {True, False}
    ropes = [text.get("rope_parameters") or text["rope_scaling"] for text in texts]
    assert any(text["head_dim"] == 128 for text in texts)
    assert [24, 20, 20] in [rope["mrope_section"] for rope in ropes]
    assert {text["num_attention_heads"] // text["num_key_value_heads"] for text in texts} >= {1, 2, 3}
    assert any(text["attention_bias"] for text in texts)
    for text, tower in zip(texts, towers, strict=True):
        assert text["num_hidden_layers"] > len(tower["deepstack_visual_indexes"])
    preprocessors = [stored(f"{case}/preprocessor_config.json") for case in CASES]
    assert any("size" not in config for config in preprocessors)
    assert any(config.get("min_pixels", 0) is None for config in preprocessors)
    assert any((FOLDER / case / "model.safetensors.index.json").is_file() for case in CASES)


def test_the_requests_cover_pictures_and_videos() -> None:
    found = [request for case in CASES for request in requests(case)]
    assert {len(request.pictures) for request in found} >= {0, 1, 2, 5}
    assert {len(request.videos) for request in found} == {0, 1, 2}
    assert any(request.pictures and request.videos for request in found)
    assert any(grid[1] > 9 * grid[2] for request in found for grid in request.grids)
    assert any(grid[2] > 3 * grid[1] for request in found for grid in request.grids)
    assert {video.grid[0] for request in found for video in request.videos} >= {2, 3, 4}
    assert any(len(video.sampled) < len(video.frames) for request in found for video in request.videos)
    assert any(len(video.sampled) % 2 for request in found for video in request.videos)
    assert any(file.suffix == ".jpg" for request in found for file in request.pictures)
    assert {request.rope_delta == 0 for request in found} == {True, False}


def test_the_processor_was_asked_about_enough() -> None:
    asked = stored("processor.json")
    published = asked["grids"]["published"]
    assert len(published) >= 60
    assert set(asked["grids"]) == set(asked["budgets"])
    assert sum(isinstance(answer, str) for _, answer in published) >= 5
    for (width, height), answer in published:
        assert isinstance(answer, str) == (max(width, height) > 200 * min(width, height))
    assert {entry["mode"] for entry in asked["pictures"]} == set(MODES)
    assert len({tuple(entry["size"]) for entry in asked["pictures"] if entry["mode"] == "RGB"}) >= 20
    for entry in (*asked["pictures"], *asked["files"]):
        assert len(entry["at"]) == SAMPLES
    assert {entry["file"] for entry in asked["files"]} == {file.name for file in (FOLDER / "files").iterdir()}
    assert len(asked["conversations"]) >= 12
    assert len(asked["videos"]) >= 25
    for entry in (*asked["conversations"], *asked["videos"]):
        assert ("error" in entry) != ("ids" in entry or "grid" in entry)


def test_places_lie_inside_and_apart() -> None:
    for total in (4 * 1536, 640 * 1536):
        found = places(total)
        assert found == sorted(set(found))
        assert len(found) == SAMPLES
        assert found[-1] < total


def test_stored_positions_are_the_table_with_aligned_corners() -> None:
    asked = stored("positions.json")
    side, merge = asked["side"], asked["merge"]
    for entry in asked["grids"]:
        height, width = entry["grid"]
        for patch, values in zip(entry["patches"], entry["values"], strict=True):
            block, inside = divmod(patch, merge**2)
            row = block // (width // merge) * merge + inside // merge
            column = block % (width // merge) * merge + inside % merge
            y, x = (row * (side - 1) / (height - 1), column * (side - 1) / (width - 1))
            assert values[0] == pytest.approx(y, abs=2e-5)
            assert values[1] == pytest.approx(x, abs=2e-5)
            corners = [
                (max(0.0, 1 - abs(y - r)) * max(0.0, 1 - abs(x - c)), r, c)
                for r in (int(y), min(int(y) + 1, side - 1))[: 1 + (int(y) + 1 < side)]
                for c in (int(x), min(int(x) + 1, side - 1))[: 1 + (int(x) + 1 < side)]
            ]
            wanted = [sum(weight * table_value(r, c, k) for weight, r, c in corners) for k in range(8)]
            assert values == pytest.approx(wanted, abs=5e-4)
