"""Answers whose time is over end at the next step with what there is; those for whom it never is enough are refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from toy_manager import GREEDY, make
from toy_model import STEP, PagedToyCache, ToyCache, ToyDetokenizer, ToyManager, ToyModel

import pio
from pio.cache.batch import Batch
from pio.engine import answer, batch_manager, deadlines
from pio.engine import runner as engine_runner
from pio.engine import steps as engine_steps
from pio.engine.handle import Handle
from pio.engine.sampling_params import SamplingParams
from pio.tensor import Tensor


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (answer, batch_manager, deadlines):
        monkeypatch.setattr(module, "perf_counter", made)
    return made


@pytest.fixture
def model() -> ToyModel:
    made = ToyModel(max_batch_sequences=2)
    made.slow = True
    return made


@pytest.fixture
def manager(model: ToyModel) -> Iterator[ToyManager]:
    made = make(model)
    yield made
    model.slow = False
    model.step(99)
    made.close()


def params(**fields: float) -> SamplingParams:
    return GREEDY.model_copy(update={"max_new_tokens": 30, **fields})


def steps(model: ToyModel, count: int) -> None:
    """Let the model do steps, and stand inside the next one."""
    for _ in range(count):
        model.step()
        model.wait_for_step()


def begin(model: ToyModel, manager: ToyManager, **fields: float) -> Handle:
    handle = manager.submit([1, 2, 3], params(**fields))
    model.wait_for_step()
    return handle


def test_an_answer_ends_with_what_there_is(clock: Clock, model: ToyModel, manager: ToyManager) -> None:
    whole = make().submit([1, 2, 3], params()).result(STEP)
    handle = begin(model, manager, deadline=5.0)
    other = manager.submit([4], params())
    steps(model, 3)
    clock.now += 4.9
    steps(model, 1)
    assert not handle.done
    clock.now += 0.1
    steps(model, 1)  # the step that runs goes on to its end
    found = handle.result(STEP)
    assert found.finish_reason == "deadline" and found.stop_reason is None
    assert found.token_ids == whole.token_ids[:5]
    assert found.usage.completion_tokens == 5
    assert "".join(event.text for event in handle.events()) == found.text
    assert whole.text.startswith(found.text)
    model.slow = False
    model.step(99)
    assert len(other.result(STEP).token_ids) == 30


def test_seconds_count_from_where_a_request_is_queued(clock: Clock, model: ToyModel) -> None:
    """What is done before, such as to compile its format, takes none of its time, by every clock that there is."""

    def prepare(skip_special_tokens: bool) -> ToyDetokenizer:
        clock.now += 7.0
        return ToyDetokenizer(skip_special_tokens)

    manager = ToyManager(model, ToyCache(40, 4), detokenizer=prepare)
    handle = begin(model, manager, deadline=5.0, first_token_deadline=3.0)
    clock.now += 2.0
    steps(model, 2)
    clock.now += 2.5
    model.slow = False
    model.step(99)
    timings = handle.result(STEP).timings
    assert (timings.queue, timings.time_to_first_token, timings.decode) == (0.0, 2.0, 2.5)
    assert handle.result(STEP).finish_reason == "length"
    manager.close()


def test_a_first_token_that_comes_late_is_kept(clock: Clock, model: ToyModel, manager: ToyManager) -> None:
    """The step that makes it began in time."""
    handle = begin(model, manager, first_token_deadline=2.0)
    clock.now += 3.0
    steps(model, 1)
    model.slow = False
    model.step(99)
    assert len(handle.result(STEP).token_ids) == 30


def test_who_waits_in_line_too_long(clock: Clock, model: ToyModel, manager: ToyManager) -> None:
    running = [begin(model, manager), manager.submit([2], params())]
    waiting = manager.submit([3], params(deadline=1.0))
    early = manager.submit([3], params(first_token_deadline=1.0))
    steps(model, 1)
    clock.now += 1.5
    steps(model, 1)
    for handle in (waiting, early):
        found = handle.result(STEP)
        assert (found.finish_reason, found.token_ids, found.text) == ("deadline", [], "")
        assert found.timings.queue == found.timings.time_to_first_token == 1.5
        assert found.timings.decode == found.timings.tokens_per_second == 0.0
    model.slow = False
    model.step(99)
    assert [len(handle.result(STEP).token_ids) for handle in running] == [30, 30]


def test_all_answers_of_a_request(clock: Clock, model: ToyModel, manager: ToyManager) -> None:
    handle = begin(model, manager, deadline=1.0, n=2, temperature=1.0)
    steps(model, 2)
    clock.now += 2.0
    steps(model, 0)
    model.slow = False
    model.step(99)
    found = handle.result(STEP)
    assert [sample.finish_reason for sample in found.samples] == ["deadline"] * 2
    assert all(0 < len(sample.token_ids) < 30 for sample in found.samples)


class Ticking(ToyModel):
    """Each step takes half a second of a clock."""

    def __init__(self, clock: Clock, **limits: int) -> None:
        super().__init__(**limits)
        self.clock = clock

    def forward(self, batch: Batch, cache: ToyCache) -> Tensor:
        self.clock.now += 0.5
        return super().forward(batch, cache)


def test_what_can_never_be_in_time_is_refused_with_the_numbers(clock: Clock) -> None:
    manager = make(Ticking(clock, max_batch_tokens=16))
    with pytest.MonkeyPatch.context() as patch:
        for module in (engine_steps, engine_runner):
            patch.setattr(module, "perf_counter", clock)
        manager.submit([1] * 40, params(max_new_tokens=3)).result(STEP)
        words = r"50 tokens of the prompt are not in the cache and take at least 1.5 s, .* 16 in less than 0.5 s, "
        words += r"and the request has 1.4 s for it; .* more time in deadline and first_token_deadline"
        for name in ("deadline", "first_token_deadline"):
            with pytest.raises(pio.DeadlineError, match=words):
                manager.submit([2] * 50, params(**{name: 1.4})).result(STEP)
        in_time = manager.submit([1] * 40, params(deadline=1.3)).result(STEP)
        assert in_time.finish_reason == "deadline"  # it can be in time where nothing else runs; steps were slower
        assert manager.submit([1] * 4, params(deadline=1.3, max_new_tokens=1)).result(STEP).finish_reason == "length"
    manager.close()


def test_what_a_running_answer_has_computed_needs_no_time(clock: Clock) -> None:
    model = Ticking(clock, max_batch_tokens=16, max_positions=80)
    manager = ToyManager(model, PagedToyCache(40, 4))
    with pytest.MonkeyPatch.context() as patch:
        for module in (engine_steps, engine_runner):
            patch.setattr(module, "perf_counter", clock)
        model.slow = True
        running = manager.submit([2] * 48, params(max_new_tokens=9))
        for _ in range(4):  # its prompt, and a token
            model.wait_for_step()
            model.step()
        model.wait_for_step()
        other = manager.submit([2] * 50, params(deadline=1.4))
        model.slow = False
        model.step(9)
        assert other.result(STEP).usage.cached_tokens == 48
        assert len(running.result(STEP).token_ids) == 9
    manager.close()


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), "soon"])
@pytest.mark.parametrize("name", ["deadline", "first_token_deadline"])
def test_no_time_at_all(name: str, value: object) -> None:
    with pytest.raises(pio.ConfigError, match=f"{name}=.* expected a number above 0"):
        SamplingParams.merge(None, None, **{name: value})


def test_a_conversation_says_that_its_time_was_over() -> None:
    with pio.load("demo") as model:
        found = model.generate("def f", deadline=1e-6)
        assert found.finish_reason == "deadline" and found.token_ids == [] and found.usage.completion_tokens == 0
