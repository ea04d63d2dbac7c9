"""Models of which a GPU holds a part: the same bits by copies, the CPU's experts, and the memory that both take."""

import gc
import logging
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from fake_driver import FakeDriver
from gpus import having

import pio
from pio.device import Device
from pio.layers.placement import Census, Placement
from pio.layers.placement_plan import plan
from pio.layers.workspace import Workspace
from pio.memory.budget import MemoryBudget
from pio.plugin import loaded_model, placing

GOLDEN = Path(__file__).parents[1] / "golden"
DENSE, EXPERTS = "qwen3/tied_gqa2", "qwen3_moe/top2_of_7"
LATENT = "glm4_moe_lite/as_published"  # whose first layer has matrices that the model makes of others
PROMPT = [5, 11, 3, 17, 8]
BLOCK = 32  # tokens
TOKENS = 3  # a prompt, a step that is recorded, and one that runs again


def load(case, **options):
    given = {"context_length": 64, "prefill_chunk": 4, "max_batch_sequences": 2, "speculation": "off", **options}
    return pio.load(GOLDEN / case, device="cuda", **given)


def answer(model):
    """Logits of a prompt in two chunks, and the tokens of an answer with the logarithms of their probabilities."""
    logits = model.logits(PROMPT).tolist()
    made = model.generate(PROMPT, max_new_tokens=TOKENS, temperature=0, logprobs=2, ignore_eos=True)
    return logits, made.token_ids, [one.top for one in made.logprobs]


class Whole:
    """A model that lies on the GPU whole: what it answers, needs and takes."""

    def __init__(self, case):
        needed = []
        with pytest.MonkeyPatch.context() as patch, having(FakeDriver()) as driver:
            place = placing.place
            patch.setattr(loaded_model, "place", lambda needs, *rest: needed.append(needs) or place(needs, *rest))
            with load(case) as model:
                assert model.metadata.offloaded == {"copied": (), "computed": ()}
                self.answer = answer(model)
            del model
            self.most = driver.most[0]
        self.fixed, self.units = needed[0].fixed, needed[0].units

    def limit(self, nbytes):
        """How much of a GPU's memory to allow, so that this is left for layers."""
        return self.fixed + nbytes


_whole = {}


def whole(case):
    """A case, run once."""
    if case not in _whole:
        _whole[case] = Whole(case)
    return _whole[case]


@contextmanager
def split(case, room, **options):
    """A model on a fresh GPU of whose memory so many bytes are for layers."""
    limit = whole(case).limit(room)
    with having(FakeDriver()) as driver:
        with load(case, gpu_memory=limit, **options) as model:
            yield model, driver
        del model
        gc.collect()


def half(case):
    """Room for half of what layers take, and no less than one buffer."""
    units = whole(case).units
    return max(sum(unit.nbytes for unit in units) // 2, max(unit.nbytes for unit in units))


@pytest.mark.parametrize("case", [DENSE, EXPERTS, "qwen3_moe/sparse_step2_tied_sharded_bf16", LATENT])
def test_layers_that_are_copied_give_the_same_bits(case):
    room, units = half(case), whole(case).units
    wanted = plan(units, room, compute=False)
    assert len(wanted.copied) >= len(units) / 2
    options = {} if case == DENSE else {"offloaded_experts": "copy"}
    with split(case, room, **options) as (model, driver):
        assert model.metadata.offloaded == {"copied": tuple(unit.layer for unit in wanted.copied), "computed": ()}
        assert answer(model) == whole(case).answer
        assert answer(model) == whole(case).answer  # all of it by recorded steps
        assert driver.most[0] <= whole(case).limit(room)
        saved = sum(unit.nbytes for unit in units) - wanted.needs(units)
        assert whole(case).most - driver.most[0] >= saved - 4096 * len(units)


def test_a_prompt_that_is_on_disk_and_layers_that_are_copied(tmp_path, monkeypatch):
    """It is found behind a restart, also by a model that is there whole: bits are the same."""
    needed, found, place = [], [], placing.place
    monkeypatch.setattr(loaded_model, "place", lambda needs, *rest: needed.append(needs) or place(needs, *rest))
    prompt = [*range(3, 3 + BLOCK + 5)]
    for folder, copied in (("other", False), ("kept", True), ("kept", True), ("kept", False)):
        options = {"prefix_cache_path": tmp_path / folder, "prefill_chunk": len(prompt)}
        if copied:
            options["gpu_memory"] = needed[0].fixed + half(DENSE)
        with having(FakeDriver()) as driver:
            with load(DENSE, **options) as model:
                assert bool(model.metadata.offloaded["copied"]) == copied
                made = model.generate(prompt, max_new_tokens=TOKENS, temperature=0, logprobs=2, ignore_eos=True)
                found.append((made.token_ids, [one.top for one in made.logprobs]))
                read = 0 if len(found) < 3 else BLOCK
                assert made.usage.cached_tokens == model.stats().disk_tokens == read
            del model
            gc.collect()
            assert not copied or driver.most[0] <= options["gpu_memory"]
    assert found == [found[0]] * 4


def test_quantized_layers_are_copied_as_they_are_packed(tmp_path):
    pio.quantize(GOLDEN / EXPERTS, tmp_path / "packed", format="int4")
    room = 2 * max(unit.nbytes for unit in whole(tmp_path / "packed").units)
    with split(tmp_path / "packed", room, offloaded_experts="copy") as (model, _):
        assert model.metadata.offloaded["copied"] and model.metadata.formats["layers"] == "int4"
        assert answer(model) == whole(tmp_path / "packed").answer


def test_a_token_has_only_its_own_experts_copied():
    k, experts, unit = 2, 7, whole(EXPERTS).units[0].nbytes
    with split(EXPERTS, 2 * max(unit.nbytes for unit in whole(EXPERTS).units), offloaded_experts="copy") as (
        model,
        driver,
    ):
        layers, sent = len(model.metadata.offloaded["copied"]), []
        for count in (2, 4):
            before = driver.sent
            made = model.generate(PROMPT, max_new_tokens=count, temperature=0, ignore_eos=True)
            sent.append(driver.sent - before)
        assert made.token_ids[:TOKENS] == whole(EXPERTS).answer[1]
        steps, small = 2, 4096  # small: the batch of a step
        assert 0 < sent[1] - sent[0] <= steps * (layers * unit * k / experts + small)


def test_experts_that_the_cpu_computes():
    room = 2 * max(unit.nbytes for unit in whole(EXPERTS).units)
    with split(EXPERTS, room, offloaded_experts="compute") as (model, driver):
        assert model.metadata.offloaded == {"copied": (), "computed": (1,)}
        logits, tokens, _ = found = answer(model)
        assert tokens == whole(EXPERTS).answer[1]
        assert relative(logits, whole(EXPERTS).answer[0]) < 2e-3
        assert found == answer(model)
        assert model.logits(PROMPT[:3]).tolist() == logits[:3]  # whatever else is in a step
        assert driver.most[0] <= whole(EXPERTS).limit(room)


def test_all_experts_here_and_layers_that_are_copied_beside():
    case = "qwen3_moe/sparse_step2_tied_sharded_bf16"
    dense = [unit.nbytes for unit in whole(case).units if not unit.experts]
    with split(case, sum(dense) - 1, offloaded_experts="compute") as (model, _):
        assert model.metadata.offloaded["computed"] and model.metadata.offloaded["copied"]
        logits, *_ = answer(model)
        assert relative(logits, whole(case).answer[0]) < 2e-3


@pytest.mark.parametrize(("seconds", "kind"), [(1e-9, "computed"), (1e9, "copied")])
def test_what_is_faster_is_done_and_said(monkeypatch, caplog, seconds, kind):
    monkeypatch.setattr(placing, "seconds_here", lambda block: seconds)
    caplog.set_level(logging.INFO, "pio.plugin.placing")
    with split(EXPERTS, 2 * max(unit.nbytes for unit in whole(EXPERTS).units)) as (model, _):
        offloaded = model.metadata.offloaded
    assert [name for name, layers in offloaded.items() if layers] == [kind]
    said = {
        "computed": "the CPU computes the experts of layers 1 ",
        "copied": "the weights of layers 0, 1, 2 are copied",
    }
    assert "cuda:0 has no room for all of 3 layers" in caplog.text and said[kind] in caplog.text
    assert "measured: for one token copies take" in caplog.text


def test_both_are_measured():
    found, to_copy, here = [], placing.seconds_to_copy, placing.seconds_here
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placing, "seconds_to_copy", lambda *given: found.append(to_copy(*given)) or found[-1])
        patch.setattr(placing, "seconds_here", lambda *given: found.append(here(*given)) or found[-1])
        with split(EXPERTS, 2 * max(unit.nbytes for unit in whole(EXPERTS).units)):
            pass
    assert len(found) == 2 and min(found) > 0


def test_what_cannot_be_is_refused():
    limit = whole(DENSE).limit(half(DENSE))
    with having(FakeDriver()) as driver:
        words = r"cuda:0: cache, activations and weights take .* may be used; give more gpu_memory"
        with pytest.raises(pio.OutOfMemoryError, match=words):
            load(DENSE, gpu_memory="1KiB")
        driver.pinned = (16 << 20) + 1000  # enough for the way there, and not for layers that stay here
        with pytest.raises(pio.OutOfMemoryError, match=r"\(pinned memory\), for weights that do not fit on the GPU"):
            load(DENSE, gpu_memory=limit)
        gc.collect()
        driver.pinned = 1 << 30
        with load(DENSE, gpu_memory=limit) as model:
            assert model.metadata.offloaded["copied"]


def test_what_says_nothing_of_a_model_without_experts_is_refused(driver):
    with pytest.raises(pio.ConfigError, match="offloaded_experts says nothing of a model without experts; leave"):
        load(DENSE, offloaded_experts="copy")


def test_a_bound_that_is_near_all_of_a_gpu_leaves_some_of_it_to_kernels(driver):
    """As where there is no bound: recorded steps and kernels lie there too."""
    workspace = Workspace(1, device=Device("cuda"))
    free = workspace.device.stream.room()
    spare = free // placing.SHARE
    for bound in (None, free, free - 1000, free - spare - 1000):
        options = {} if bound is None else {"gpu_memory": bound}
        runtime = pio.RuntimeConfig.from_options(device="cuda", **options)
        most = free - spare if bound is None else min(bound, free - spare)
        for needed in (most, most + 1):
            given = placing.Needs(Census(), needed), runtime, workspace, MemoryBudget(1 << 40), lambda: None
            if needed == most:
                assert type(placing.place(*given, whole=True)) is Placement
            else:
                with pytest.raises(pio.OutOfMemoryError, match="may be used"):
                    placing.place(*given, whole=True)


@pytest.mark.parametrize("option", [{"gpu_memory": "1GiB"}, {"offloaded_experts": "copy"}])
def test_options_of_gpus_on_the_cpu_are_refused(option):
    with pytest.raises(pio.ConfigError, match=f"{next(iter(option))} says nothing with device='cpu'"):
        pio.load(GOLDEN / DENSE, device="cpu", **option)
    config = pio.RuntimeConfig.from_options(device="cuda", **option).updated(device="cpu")
    assert not {"gpu_memory", "offloaded_experts"} & config.model_fields_set


def relative(found, wanted):
    """How far numbers are from others, relative L2."""
    pairs = [(x, y) for one, other in zip(found, wanted, strict=True) for x, y in zip(one, other, strict=True)]
    return (sum((x - y) ** 2 for x, y in pairs) / sum(y * y for _, y in pairs)) ** 0.5
