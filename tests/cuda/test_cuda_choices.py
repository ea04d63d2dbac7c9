"""A sampler on a GPU beside the CPU's: many answers with everything that a request can ask for, in one call."""

import ctypes
import random
from dataclasses import replace

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from test_cuda_sampling import forget, outcome, rows_of

from pio.device import Device
from pio.errors import DeviceError
from pio.memory.budget import MemoryBudget
from pio.ops import _sent_choices
from pio.ops.bans import Bans
from pio.ops.penalties import Penalties
from pio.ops.sampling import Choice, Sampler
from pio.ops.slices import Slices
from pio.ops.token_mask import TokenMask
from pio.tensor import Tensor

N = 203  # tokens: no whole number of anything


def penalties_of(source, i):
    """Penalties of the answer with this number: each has another selection of all that there is."""
    token = lambda: source.randrange(N)  # noqa: E731
    bans, guided = None, i % 3 == 1
    if i % 3:
        bans = Bans(
            [token() for _ in range(5)] * 2,
            N,
            always=[token() for _ in range(i % 4)],
            first=[token()] if i % 2 else [],
            early=() if guided else [token()],
            early_tokens=0 if guided else 3,
            sequences=[[token(), token()], [token()]],
            ngram=i % 5,
            guided=guided,
        )
        if guided:
            bans.mask = TokenMask(N, [t for t in range(N) if t % (i + 2)])
    made = Penalties(
        [token() for _ in range(i)],
        9,
        N,
        repetition=1.0 if i % 4 == 0 else 1.3,
        presence=0.4 * (i % 2),
        frequency=0.25 * (i % 3),
        bias={token(): 1.5 - k for k in range(i % 5)},
        bans=bans,
    )
    for _ in range(i % 7):
        made.count(token())
    return made


def choices_of(seed, rows):
    """Answers, no two of which are chosen alike, each aimed at a row."""
    source, found = random.Random(seed), []
    for i in range(23):
        choice = Choice(
            (0.0, 0.7, 1.0, 2.5)[i % 4],
            (0, 1, 5, 40, N)[i % 5],
            (1.0, 0.9, 0.4)[i % 3],
            (0.0, 0.05)[i % 2],
            penalties=None if i % 6 == 0 else penalties_of(source, i),
            logprobs=(None, 0, 3, N + 2)[i % 4],
        )
        choice.aim(source.randrange(rows), source.random())
        found.append(choice)
    return found


def count(choice):
    """Have an answer take what was chosen, as answers do."""
    if choice.penalties is not None and choice.token >= 0:
        choice.penalties.count(choice.token)


@pytest.mark.parametrize("multiprocessors", [1, 5])
def test_a_batch_of_every_kind_of_answer(driver, multiprocessors):
    driver.gpus[0] = replace(driver.gpus[0], multiprocessors=multiprocessors)
    rows, here, there = 4, choices_of(3, 4), choices_of(3, 4)
    samplers = Sampler(N), Sampler(N, device=Device("cuda"))
    for step in range(2):  # counts grow, and lists of what must not come change
        logits = rows_of(random.Random(step), rows, N)
        for choice in (*here, *there):
            forget(choice)
        samplers[0].sample(logits, here)
        samplers[1].sample(logits.to("cuda"), there)
        for one, other in zip(here, there, strict=True):
            token, logprob, ids, others = outcome(one)
            assert (other.token, [*outcome(other)[2]]) == (one.token, [*ids]) and token == one.token
            assert [other.logprob, *outcome(other)[3]] == pytest.approx([logprob, *others], abs=1e-9)
            assert [t for t, _ in other.likeliest] == [t for t, _ in one.likeliest]
        for i, (one, other) in enumerate(zip(here, there, strict=True)):
            count(one)
            count(other)
            for choice in (one, other):
                choice.aim((i + step) % rows, 0.1 * (i % 10))
    assert len({choice.token for choice in here}) > 5


def test_a_step_takes_one_copy_there_and_one_back(driver):
    sampler, logits = Sampler(N, device=Device("cuda")), rows_of(random.Random(1), 4, N).to("cuda")
    choices = choices_of(5, 4)
    sampler.sample(logits, choices)  # loads the kernel, and makes room
    driver.calls.clear()
    sampler.sample(logits, choices)
    made = {name: driver.calls.count(name) for name in ("copy_in", "copy_out", "wait", "allocate", "free")}
    assert made == {"copy_in": 1, "copy_out": 1, "wait": 1, "allocate": 0, "free": 0}


def shaped(choices):
    """Take the masks off those that have one, and return these with the masks."""
    found = [(choice, choice.penalties.bans) for choice in choices if choice.penalties is not None]
    guided = [(choice, bans.mask) for choice, bans in found if bans is not None and bans.mask is not None]
    for choice, _ in guided:
        choice.penalties.bans.mask = None
    return guided


def refused(guided, step):
    """Have some of them be one of their masks, from another row, and return them."""
    found = []
    for i, (choice, mask) in enumerate(guided):
        if i % 3 != step:
            choice.penalties.bans.mask = mask
            choice.aim((i + 1) % 4, 0.9 - 0.05 * i)
            found.append(choice)
    return found


def allowed(choice):
    return choice.penalties.bans.mask.words[choice.token // 32] >> choice.token % 32 & 1


def test_what_is_refused_goes_there_again_alone(driver, monkeypatch):
    """With its masks, for which there is no room yet; what went with the batch is written over, and others stay."""
    monkeypatch.setattr(_sent_choices, "_LEAST", 64)
    device, here, there = Device("cuda"), choices_of(11, 4), choices_of(11, 4)
    sampler, batch = Sampler(N, device=device), Slices(1, 1, device=device, room=1 << 16)
    guided, least = (shaped(here), shaped(there)), sampler.nbytes
    for step in range(2):
        logits = rows_of(random.Random(step), 4, N)
        moved = logits.to("cuda")
        for i, choice in enumerate((*here, *there)):
            choice.aim((i % len(here) + step) % 4, 0.04 * (i % len(here)))
        batch.begin()
        sampler.bring(there, batch)
        batch.send()
        Sampler(N).sample(logits, here)
        sampler.sample(moved, there)
        assert (sampler.nbytes == least) == (step == 0), "they went with the batch"
        before = [bytes(choice.record) for choice in there]
        place, gone = batch.carry(1 << 15)
        ctypes.memset(place, 0xEE, 1 << 15)
        batch.send()
        again, others = (refused(some, step) for some in guided)
        Sampler(N).sample(logits, again)
        driver.calls.clear()
        sent = driver.sent
        sampler.sample(moved, others)
        assert driver.sent - sent == len(_sent_choices._packed(others)[0]) < sampler.nbytes
        assert (driver.calls.count("copy_in"), driver.calls.count("copy_out")) == (1, 1)
        ctypes.memset(place, 0, 1 << 15)
        device.stream.copy_out(place, gone, 1 << 15)
        assert set(ctypes.string_at(place, 1 << 15)) == {0xEE}, "the batch's memory is none of theirs"
        assert all(allowed(choice) for choice in others) and len(others) == len(again) >= 4
        for one, other, was in zip(here, there, before, strict=True):
            assert [outcome(other)[0], *outcome(other)[2]] == [outcome(one)[0], *outcome(one)[2]]
            assert outcome(other)[1] == pytest.approx(outcome(one)[1], abs=1e-9)
            assert (bytes(other.record) == was) == (other not in others)
            count(one)
            count(other)


@pytest.mark.parametrize("room", [0, 1 << 16])
def test_choices_travel_with_a_batch_where_it_has_room(driver, room):
    """Behind the tables that hold, which they leave as they are; what was not brought, or not so, is sent."""
    device, logits, here = Device("cuda"), rows_of(random.Random(6), 4, N), choices_of(9, 4)
    Sampler(N).sample(logits, here)
    wanted, there = [choice.token for choice in here], logits.to("cuda")
    sampler, batch = Sampler(N, device=device), Slices(3, 5, device=device, room=room)
    for hold, chosen in ((3, slice(None)), (2, slice(None)), (1, slice(3, 20)), (3, slice(None, None, -1))):
        brought, taken = choices_of(9, 4), choices_of(9, 4)[chosen]
        if hold != 1:
            taken = brought[chosen]
        batch.begin()
        for i in range(hold):
            batch.append(2, i, [7 + i, 8 + i, 9 + i])
        sampler.bring(brought, batch)
        driver.calls.clear()
        batch.send()
        sampler.sample(there, taken)
        assert [choice.token for choice in taken] == wanted[chosen]
        assert driver.calls.count("copy_in") == (1 if room and chosen == slice(None) else 2)
        assert [row[:3] for row in batch.block_tables.tolist()[:hold]] == [[7 + i, 8 + i, 9 + i] for i in range(hold)]
    driver.calls.clear()
    sampler.sample(there, brought)  # what was brought holds for one time
    assert driver.calls.count("copy_in") == 1 and [choice.token for choice in brought] == wanted


def test_nothing_is_brought_where_tokens_are_chosen_on_the_cpu(driver):
    logits, (here, there) = rows_of(random.Random(8), 4, N), (choices_of(2, 4), choices_of(2, 4))
    Sampler(N).sample(logits, here)
    for device in (Device("cpu"), Device("cuda").without("sampling")):
        sampler, batch = Sampler(N, device=device), Slices(1, 1, device=device, room=1 << 16)
        batch.append(1, 0, [0])
        sampler.bring(there, batch)
        batch.send()
        sampler.sample(logits.to(device), there)
        assert [choice.token for choice in there] == [choice.token for choice in here]


def test_records_that_need_more_room_than_there_is(driver, monkeypatch):
    monkeypatch.setattr(_sent_choices, "_LEAST", 64)
    logits, here, there = rows_of(random.Random(2), 4, N), choices_of(7, 4), choices_of(7, 4)
    sampler, budget = None, MemoryBudget(1 << 22)
    Sampler(N).sample(logits, here)
    sampler = Sampler(N, budget, device=Device("cuda"))
    before = sampler.nbytes
    sampler.sample(logits.to("cuda"), there)
    assert [choice.token for choice in there] == [choice.token for choice in here]
    assert budget.used == sampler.nbytes > before


def test_why_nothing_can_be_chosen_is_found_on_the_gpu_too(driver):
    logits = rows_of(random.Random(4), 2, N)
    logits[1, 77].fill_(float("nan"))
    everything = Choice(penalties=Penalties([], 1, N, bans=Bans([], N, always=range(N))))
    everything.aim(0, 0.5)
    broken = Choice(0.8)
    broken.aim(1, 0.5)
    there = logits.to("cuda")
    Sampler(N, device=Device("cuda")).sample(there, [everything, broken])
    assert "forbid every token" in str(everything.refusal(there))
    assert "77" in str(broken.refusal(there))


def test_logits_of_another_device(driver):
    with pytest.raises(DeviceError, match="logits lie on cpu, and this sampler chooses on cuda:0"):
        Sampler(N, device=Device("cuda")).sample(Tensor.zeros((1, N)), [Choice()])
