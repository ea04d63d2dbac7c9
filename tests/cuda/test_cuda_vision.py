"""A model that sees, on a GPU: its tower beside the CPU's, prompts with pictures, and with embeddings of their own."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')
pytest.importorskip("PIL", reason="pictures take Pillow")

from gpu_models import SEEING, greedy, load, prompt, relative

import pio
from pio.device import Device
from pio.errors import OutOfMemoryError
from pio.tensor import Tensor
from pio.text.encoded_prompt import PromptEmbeddings

sys.path.append(str(Path(__file__).parents[1] / "golden"))

import vision_case

CLOSE = 2e-3  # relative L2, as for texts


def asked(name, case="one_level"):
    """A request of a golden checkpoint, as a caller gives it."""
    found = next(r for r in vision_case.requests(case) if r.name == name)
    videos = [{"video": video.frames, "fps": video.fps} for video in found.videos]
    return {"text": found.prompt, "images": found.pictures, "videos": videos}


def encoded(model, given):
    """What the tower makes of the pictures of a prompt."""
    media = [placed.medium for placed in model.loaded.prompts.encode(given).media]
    run = model.loaded.model.encoder.encode(media)
    while True:
        try:
            next(run)
        except StopIteration as done:
            return done.value


SMALL = "one"  # 4 x 4 patches


@pytest.mark.parametrize(("case", "name"), [("one_level", "one"), ("one_level", "two"), ("video", "video")])
def test_the_tower_gives_what_the_cpus_gives(driver, case, name):
    """All pixels go there in pieces: steps are smaller than a picture, and than a moment of a video."""
    with load(f"qwen3_vl/{case}", "cpu") as model:
        wanted = encoded(model, asked(name, case))
    with load(f"qwen3_vl/{case}", prefill_chunk=9, max_batch_sequences=1) as model:
        found = encoded(model, asked(name, case))
        for (rows, additions), (right, added) in zip(found, wanted, strict=True):
            assert rows.device == "cuda:0"
            for one, other in zip((rows, *additions), (right, *added), strict=True):
                assert relative(one, other) < CLOSE


def test_logits_and_tokens_behind_a_picture(driver):
    with load(SEEING, "cpu") as model:
        wanted, tokens = model.logits(asked(SMALL)), greedy(model, asked(SMALL)).token_ids
    with load(SEEING) as model:
        assert relative(model.logits(asked(SMALL)), wanted) < CLOSE
        found = greedy(model, asked(SMALL))
        assert found.token_ids == tokens
        assert model.stats().encoded_media == 1, "what the tower has made is kept there"


def test_a_token_behind_a_picture_costs_one_copy_a_graph_a_launch_and_a_wait(driver):
    with load(SEEING) as model:
        greedy(model, asked(SMALL), 3)
        driver.calls.clear()
        greedy(model, asked(SMALL), 1)
        first = len(driver.calls)
        greedy(model, asked(SMALL), 3)
        steps = [call for call in driver.calls[2 * first :] if call != "enter"]
    assert steps == ["copy_in", "run_graph", "launch", "copy_out", "wait"] * 2


def test_embeddings_that_come_with_a_prompt_are_copied_once(driver):
    with load(SEEING, "cpu") as model:
        ids, hidden = prompt(model, 3, 5), model.loaded.model.hidden_size
        rows, added = (Tensor.from_list([[0.01 * (k * i % 7) for i in range(hidden)]] * 3) for k in (1, 2))
        given = pio.EncodedPrompt(ids, embeddings=[PromptEmbeddings(1, rows, (added,))])
        wanted = model.logits(given)
        plain = model.logits(ids)
    with load(SEEING, prefill_chunk=2) as model:
        handle = model.loaded.manager.submit_logits(given)
        rows.fill_(9.0)  # the copy was made when it was submitted
        found = handle.result()
        assert relative(found, wanted) < CLOSE < relative(found, plain)
        there = pio.EncodedPrompt(ids, embeddings=[PromptEmbeddings(1, rows.to("cuda"), (added.to("cuda"),))])
        assert relative(model.logits(there), found) > CLOSE


def test_a_prompt_with_a_video_and_a_hit_behind_it(driver):
    """Positions on three axes, additions behind three layers, and blocks that are known by what was seen."""
    given = asked("video", "video")
    with load("qwen3_vl/video", "cpu") as model:
        wanted = greedy(model, given)
    with load("qwen3_vl/video") as model:
        for cached in (0, 32):
            found = greedy(model, given, logprobs=3)
            assert (found.token_ids, found.usage.cached_tokens) == (wanted.token_ids, cached)
        assert model.stats().encoded_media == 1


def test_pictures_for_which_the_gpu_has_no_memory(driver):
    with load(SEEING) as model:
        driver.gpus[0] = replace(driver.gpus[0], nbytes=driver._used(0) + 1000)
        with pytest.raises(OutOfMemoryError, match=r"encoding pictures .* cuda:0 has .* free"):
            model.generate(asked(SMALL), max_new_tokens=1)
        driver.gpus[0] = replace(driver.gpus[0], nbytes=64 << 20)
        assert len(greedy(model, asked(SMALL), 1).token_ids) == 1


def test_a_tower_on_the_cpu_copies_no_pixels():
    with load(SEEING, "cpu") as model:
        assert model.loaded.model.device == Device("cpu")
        grids = [placed.medium for placed in model.loaded.prompts.encode(asked(SMALL)).media]
        assert model.loaded.model.encoder._run(grids).pixels is None
