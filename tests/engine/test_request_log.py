"""What is logged of requests: every event once, with numbers, and no word of what was said."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from toy_manager import GREEDY, make
from toy_model import STEP, ToyModel

import pio
from pio.engine.sampling_params import SamplingParams
from pio.errors import CancelledError, PioError

LOGGER = "pio.engine"
SECRET = "# zebra quagga okapi\n"


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with pio.load("demo", context_length=256) as loaded:
        yield loaded


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Messages without the numbers of requests and seconds, and without what other tests' requests say."""
    texts = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    return [re.sub(r"\d+\.\d+", "S", re.sub(r"request \d+", "request N", text)) for text in texts]


def test_an_answer_is_told_from_its_beginning_to_its_end(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    prompt = len(model.tokenize(SECRET))
    model.generate(SECRET, max_new_tokens=9, ignore_eos=True, priority=2)
    assert told(caplog) == [
        f"request N: {prompt} prompt tokens, 1 answer, priority 2, queued for S s",
        "request N: first token after S s",
        f"request N: finished (length): 9 tokens behind {prompt}, 0 of them cached, in S s, S tokens/s",
    ]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_nothing_that_was_said_is_told(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither prompts nor answers nor what was asked of them, whatever becomes of the request."""
    caplog.set_level(logging.DEBUG)
    fields: dict[str, Any] = {"max_new_tokens": 20, "seed": 1}
    chat = [{"role": "user", "content": SECRET}]
    words = {*re.findall(r"[a-z]{4,}", model.generate(SECRET, n=2, **fields).text + SECRET)} | {"gnu"}
    model.generate(chat, stop=["okapi"], **fields)
    model.generate(SECRET, response_format=["zebra", "quagga"], **fields)
    model.logits(model.tokenize(SECRET))
    model.submit(SECRET, max_new_tokens=200, ignore_eos=True).cancel()
    with pytest.raises(PioError, match="forbid every token"):
        model.generate(SECRET, response_format=["gnu"], suppress_tokens=list(range(16, 4096)))
    model.generate(SECRET, deadline=1e-6, **fields)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) > 12 and words >= {"zebra", "quagga", "okapi"}
    known = {"first", "token", "tokens", "after", "finished", "stop", "length", "deadline", "request", "them"}
    for text in texts:
        assert not (words - known) & {*re.findall(r"[a-z]{3,}", text)}, text
    assert all(record.args is None or SECRET not in repr(record.args) for record in caplog.records)


def test_several_answers_and_the_logits_of_a_prompt(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    model.generate(SECRET, n=2, max_new_tokens=3, ignore_eos=True)
    model.logits(model.tokenize(SECRET))
    texts = told(caplog)
    assert texts[0].endswith("2 answers, priority 0, queued for S s")
    for answer in (1, 2):
        own = [text for text in texts if text.startswith(f"request N, answer {answer} of 2: ")]
        assert [text.split(": ")[1].split()[0] for text in own] == ["first", "finished"]
    assert texts[-1] == f"request N: logits of {len(model.tokenize(SECRET))} tokens in S s"


def test_who_is_cancelled_or_has_to_give_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    model = ToyModel()
    model.slow = True
    manager = make(model, num_blocks=8)
    params = SamplingParams(temperature=0, max_new_tokens=20, ignore_eos=True)
    handles = [manager.submit([4, 2, 3], params)]
    model.wait_for_step()  # the second is there before the first has a token: both cannot have their room
    handles.append(manager.submit([5, 2, 3], params))
    model.slow = False
    model.step()
    for handle in handles:
        handle.result(STEP)
    model.slow = True
    gone = manager.submit([1], params)
    model.wait_for_step()
    gone.cancel()
    model.slow = False
    model.step()
    manager.submit([7], GREEDY).result(STEP)
    manager.close()
    texts = told(caplog)
    assert any(
        re.fullmatch(r"request N: gave way to others behind \d+ tokens, \d+ of them generated", t) for t in texts
    )
    assert any(re.fullmatch(r"request N: cancelled behind \d+ generated tokens, after S s", t) for t in texts)
    assert sum("finished" in text for text in texts) == 3


def test_what_is_wrong_is_a_warning_and_what_is_a_callers_doing_is_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    model = ToyModel()
    manager = make(model)
    with pytest.raises(PioError, match="forbid every token"):
        manager.submit([1], SamplingParams(suppress_tokens=list(range(model.vocab_size)))).result(STEP)
    assert told(caplog) == []
    model.error, model.poison = RuntimeError("zebra"), 1
    with pytest.raises(PioError, match="zebra"):
        manager.submit([1], GREEDY).result(STEP)
    manager.close()
    assert told(caplog) == ["RuntimeError ends request N"]
    assert caplog.records[-1].levelno == logging.WARNING and "zebra" not in caplog.text


def test_a_model_that_is_closed_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    model = ToyModel()
    model.slow = True
    manager = make(model)
    handle = manager.submit([1], GREEDY)
    model.wait_for_step()
    worker: Any = manager._worker
    closing = threading.Thread(target=manager.close)
    closing.start()
    while not worker._closed:
        pass
    model.step()
    closing.join(STEP)
    with pytest.raises(CancelledError):
        handle.result(STEP)
    assert told(caplog)[-1].startswith("request N: ended by CancelledError behind ")
    assert all(record.levelno == logging.DEBUG for record in caplog.records)


def test_tokens_cost_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether somebody listens is asked once for each event, and no line is made where nobody does."""
    logger, asked = logging.getLogger(LOGGER), list[int]()
    enabled = logger.isEnabledFor

    def ask(level: int) -> bool:
        asked.append(level)
        return enabled(level)

    monkeypatch.setattr(logger, "isEnabledFor", ask)
    monkeypatch.setattr(logger, "_log", lambda *_, **__: pytest.fail("a line was made"))
    for tokens in (5, 60):
        asked.clear()
        model.generate(SECRET, max_new_tokens=tokens, ignore_eos=True)
        assert len(asked) == 3


class Raising(logging.Handler):
    """A program's own handler, which lets its errors out."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.module, record.funcName))
        raise OSError("zebra")


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Iterator[Raising]:
    logger, handler = logging.getLogger(LOGGER), Raising()
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.setLevel(level)


def test_a_handler_that_raises_ends_neither_a_request_nor_the_thread(
    raising: Raising, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it raises is shown, and its record names the place in pio that logs."""
    model = ToyModel()
    manager = make(model)
    manager.submit([1], GREEDY).result(STEP)
    model.error, model.poison = RuntimeError("quagga"), 1
    with pytest.raises(PioError, match="quagga"):
        manager.submit([1], GREEDY).result(STEP)
    assert manager.submit([2], GREEDY).result(STEP).token_ids
    manager.close()
    names = {name for _, name in raising.lines}
    assert names >= {"arrived", "began", "finished", "failed", "dropped"}
    assert {module for module, _ in raising.lines} == {"request_log"}
    assert capsys.readouterr().err.count("OSError: zebra") == len(raising.lines)


def test_nothing_is_shown_where_logging_shows_nothing(
    raising: Raising, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(ToyModel())
    monkeypatch.setattr(logging, "raiseExceptions", False)
    manager.submit([1], GREEDY).result(STEP)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr("sys.stderr", None)
    manager.submit([1], GREEDY).result(STEP)
    manager.close()
    assert raising.lines and capsys.readouterr().err == ""
