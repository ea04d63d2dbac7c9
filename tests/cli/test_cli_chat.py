import os
import re
import select
import shutil
import signal
import sys
from pathlib import Path

import pytest
from needs import needs_terminals
from processes import Program, interrupted

import pio as package
from pio.cli.chat import _Style
from pio.cli.conversation import Conversation
from pio.errors import CapacityError
from pio.system import HERE

SHORT = ("-n", 12, "-t", 0, "--no-think")


@pytest.fixture(scope="module")
def model():
    with package.load("demo") as model:
        yield model


def test_answers_over_a_pipe(pio, model):
    ran = pio("chat", *SHORT, input="Write a function.\n\nAnd a class.\n")
    conversation = Conversation(model, {"max_new_tokens": 12, "temperature": 0.0, "repetition_penalty": 1.15})
    conversation.thinking = False
    answers = [
        "".join(part for kind, part in conversation.ask(q) if kind == "text")
        for q in ("Write a function.", "And a class.")
    ]
    assert ran.exit_code == 0 and ran.stderr == ""
    assert ran.stdout == "".join(answer + "\n" for answer in answers)


def test_commands(pio):
    ran = pio(
        "chat", *SHORT, input="/help\n/think\n/no_think\n/system Be brief.\n/system\n/clear\n/dance\n/exit\nnever\n"
    )
    assert (ran.exit_code, ran.stdout) == (0, "")
    said = ran.stderr.splitlines()
    assert "/clear" in said[0]
    assert said[-6:] == [
        "thinking is on",
        "thinking is off",
        "system message set",
        "system message removed",
        "forgotten",
        "there is no command /dance; /help shows them",
    ]


def test_an_error_does_not_end_the_conversation(pio):
    ran = pio("chat", "--context-length", 64, *SHORT, input="x = 1; " * 100 + "\nshort\n")
    assert ran.exit_code == 0 and ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1
    assert len(ran.stdout.splitlines()) >= 2


def test_an_answer_that_ended_while_the_model_thought(pio, model):
    def asked(thinking: bool) -> Conversation:
        conversation = Conversation(model, {"max_new_tokens": 3, "temperature": 0.0})
        conversation.thinking = thinking
        said = "".join(part for kind, part in conversation.ask("Hi") if kind == "text")
        assert conversation.last is not None and conversation.last.text == said
        return conversation

    assert asked(False).last.answered and not asked(True).last.answered
    ran = pio("chat", "-n", 3, "-t", 0, "--think", input="Hi\n")
    assert (ran.exit_code, ran.stdout) == (0, "\n")
    assert ran.stderr.startswith(
        "note: the answer ended inside the model's reasoning, after 3 tokens; a larger --max-n"
    )


def test_turns_are_kept_and_the_oldest_dropped(model):
    conversation = Conversation(model, {"max_new_tokens": 5, "temperature": 0.0}, system="Be brief.")
    for question in ("one", "two"):
        answer = "".join(part for kind, part in conversation.ask(question) if kind == "text")
        asked, said = conversation.messages[-2:]
        assert asked == {"role": "user", "content": question}
        tokens = said.pop("token_ids", None)  # none where it is still thinking, of which nothing comes back
        assert said == {"role": "assistant", "content": answer} and tokens in (None, conversation.last.token_ids[:5])
    with package.load("demo", context_length=96) as small:
        short = Conversation(small, {"max_new_tokens": 5, "temperature": 0.0})
        for number in range(12):
            list(short.ask(f"question number {number}"))  # far more than 96 tokens together
        assert len(short.messages) == 24
        with pytest.raises(CapacityError):
            list(short.ask("word " * 200))
        assert len(short.messages) == 24
        short.clear()
        assert short.messages == []


def test_an_answer_that_is_stopped_is_kept(model):
    conversation = Conversation(model, {"max_new_tokens": 200, "ignore_eos": True, "seed": 1})
    conversation.thinking = False
    pieces = conversation.ask("Write a function.")
    seen = "".join(part for _, part in (next(pieces), next(pieces)))
    pieces.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": seen}


def test_thinking_is_switched_by_template_or_by_message(model, monkeypatch):
    sent = []

    def encode(prompt, *answered, **given):
        if isinstance(prompt, list):
            sent.append((prompt[-1]["content"], given))
        return original(prompt, *answered, **given)

    original = model.loaded.prompts.encode
    monkeypatch.setattr(model.loaded.prompts, "encode", encode)
    conversation = Conversation(model, {"max_new_tokens": 1})
    for has_switch in (True, False):
        conversation._has_switch = has_switch
        for thinking in (None, True, False):
            conversation.thinking = thinking
            list(conversation.ask("Hi"))
    assert sent == [
        ("Hi", {}),
        ("Hi", {"enable_thinking": True}),
        ("Hi", {"enable_thinking": False}),
        ("Hi", {}),
        ("Hi /think", {}),
        ("Hi /no_think", {}),
    ]


def test_a_model_without_a_template_is_refused(pio, model, tmp_path):
    folder = tmp_path / "my model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(Path(model.path) / name, folder)
    (folder / "model.safetensors").write_bytes(b"not read")  # gigabytes, where it is no demo
    for command in (("chat", folder), ("generate", folder, "Hi", "--chat")):
        ran = pio(*command, input="Hi\n")
        usable = f"use pio generate {HERE.quote(str(folder))} PROMPT, or a model that was"
        assert ran.exit_code == 1 and usable in ran.stderr


PATIENCE = 120  # seconds without a word after which the program hangs


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        import pty  # which not every system has

        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.environ.update(TERM="xterm", COLUMNS="100")
            os.execv(sys.executable, [sys.executable, "-m", "pio", *arguments])
        self.seen = ""

    def expect(self, pattern: str) -> str:
        """Read until the pattern is there; what came before it is forgotten."""
        while (found := re.search(pattern, self.seen)) is None:
            if not select.select([self.terminal], [], [], PATIENCE)[0]:
                os.kill(self.process, signal.SIGKILL)
                pytest.fail(f"nothing came for {PATIENCE} s while waiting for {pattern!r} behind {self.seen[-300:]!r}")
            self.seen += os.read(self.terminal, 4096).decode("utf-8", "replace")
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def send(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def end(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        os.close(self.terminal)
        return code


@needs_terminals
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_on_a_terminal():
    wild = ("-t", "3", "--top-k", "0", "--top-p", "1")  # so that no end token comes for long
    chat = Terminal("chat", "demo", "-n", "1900", "--seed", "1", *wild)
    chat.expect("> ")
    for _ in range(5):
        chat.send("Write a function.\n")
        chat.expect(r"function\.\r\n.{20}")
        chat.send("\x03")
        if "stopped" in chat.expect(r"stopped\r\n|Ctrl-D leaves"):  # the latter: the answer was over just before
            break
    else:
        pytest.fail("no answer was stopped")
    chat.expect("> ")
    chat.send("\x04")
    assert chat.end() == 0


@needs_terminals
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_paste_is_one_message():
    pytest.importorskip("readline")
    chat = Terminal("chat", "demo", "-n", "3", "-t", "0", "--no-think", "--system", "Be brief.")
    chat.expect(r"ready.*\r\n.*\x1b\[\?2004h> ")
    chat.send("\x1b[200~first line\nsecond line\nthird line\x1b[201~\r")
    chat.expect(r"third line")
    chat.expect(r"\n\x1b\[\?2004h> ")  # after one answer
    chat.send("\x1b[A\r")  # and it is one in the history
    chat.expect(r"third line")
    chat.expect(r"\n\x1b\[\?2004h> ")
    chat.send("quit\r")
    assert chat.end() == 0 and chat.seen.count("> ") == 0


@pytest.mark.parametrize("word", ["/bye", "/exit", "/quit", "exit", "quit"])
def test_ways_to_leave(pio, word):
    ran = pio("chat", *SHORT, input=f"{word}\nnever\n")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "", "")


def test_bad_options_are_refused_before_a_model_is_looked_for(pio):
    ran = pio("chat", "no-such-model", "--top-p", 7, input="Hi\n")
    assert ran.exit_code == 1 and ran.stderr.startswith("error: --top-p 7.0 cannot be used")


def test_ctrl_c_ends_a_conversation_over_a_pipe(tmp_path):
    questions = tmp_path / "questions"
    questions.write_text("Write a function.\n" * 50, "utf-8")
    wild = ("-n", "1900", "-t", "3", "--top-k", "0", "--top-p", "1", "--no-think")
    with questions.open() as file:
        assert interrupted(Program("pio", "chat", "demo", *wild, stdin=file)) == (130, b"")


def test_reasoning_is_dimmed_on_a_terminal_and_left_out_elsewhere(capsys):
    for terminal, expected in ((True, "\x1b[2mhm, so\x1b[0m\n\nyes.\n"), (False, "yes.\n")):
        style = _Style(terminal)
        for kind, piece in (("reasoning", "hm"), ("reasoning", ", so"), ("text", "yes"), ("text", ".")):
            style.show(kind, piece)
        style.end()
        assert capsys.readouterr().out == expected
    style = _Style(True)
    style.show("reasoning", "cut off")
    style.end()
    assert capsys.readouterr().out == "\x1b[2mcut off\x1b[0m\n"


def test_reasoning_that_is_closed_or_was_not_asked_for(model):
    fields = {"max_new_tokens": 30, "seed": 5, "logit_bias": {3: 100.0}, "max_thinking_tokens": 2}
    conversation = Conversation(model, fields)
    kinds = [kind for kind, _ in conversation.ask("Add two.")]
    assert "reasoning" in kinds and conversation.last.token_ids[3] == 4
    del fields["logit_bias"]
    conversation = Conversation(model, fields)
    conversation.thinking = False
    assert {kind for kind, _ in conversation.ask("Add two.")} == {"text"}
