"""Conversations with the published tokenizers and templates, whose answers a test makes up token by token."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from pio.engine.answer_text import AnswerText
from pio.engine.sampling_params import SamplingParams
from pio.plugin.prompts import Prompts
from pio.text.chat_template import ChatTemplate
from pio.text.returned.message import FinishedAnswer
from pio.text.tokenizer import Tokenizer

CHECKPOINTS = Path(__file__).parents[2] / ".." / "shared" / "checkpoints"
QWEN = "qwen3-0.6b"
GLM = "glm-4.7-flash"
GLM_MARKS = (
    *("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
)


def schema(name: str, **properties: str | list[str]) -> dict[str, Any]:
    typed = {key: {"type": kind} for key, kind in properties.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": typed}}}


TOOLS = [schema("look", where="string", deep="boolean"), schema("count", first="integer", rest="array")]


class Chat:
    """A conversation with a made-up model: it writes what it is told to, in tokens that no tokenizer would choose."""

    def __init__(self, name: str, **options: Any) -> None:
        folder = CHECKPOINTS / name
        if not folder.is_dir():
            pytest.skip("../shared/checkpoints is not there")
        self.tokenizer = tokenizer_of(name)
        self.prompts = Prompts(str(folder), self.tokenizer, ChatTemplate.from_folder(folder), **options)
        self.messages: list[Any] = [{"role": "user", "content": "Where is it?"}]
        self.variables: dict[str, Any] = {"tools": TOOLS}
        self.last: list[int] = []  # the prompt and the answer

    def ask(self) -> list[int]:
        """The tokens of the next prompt."""
        return [*self.prompts.encode(self.messages, True, **self.variables).token_ids]

    def finished(self, text: str, *, end: int | None = None, **fields: Any) -> FinishedAnswer:
        """What becomes of an answer with this text."""
        params = SamplingParams(**fields)
        encoded = self.prompts.encode(self.messages, True, **self.variables)
        keep = frozenset() if encoded.calls is None else encoded.calls.tag_ids
        detokenizer = self.prompts.detokenizer(params.skip_special_tokens, keep)
        answer = AnswerText(params, detokenizer, self.prompts.token_text, encoded.reasoning, encoded.calls)
        ids = odd_tokens(self.tokenizer, text)
        for place, token in enumerate(ids):
            answer.push(token, ends=False, last=end is None and place == len(ids) - 1)
            if answer.stops.matched:
                ids = ids[: place + 1]
                break
        if end is not None:
            answer.push(end, ends=True, last=True)
        self.last = [*encoded.token_ids, *ids]
        stop = answer.stops.matched
        return FinishedAnswer(answer.answer, answer.reasoning, tuple(answer.calls), ids, stop, encoded.calls)

    def answer(self, text: str, **fields: Any) -> dict[str, Any]:
        """Add an answer to the conversation as the message that it gives, by way of JSON."""
        message = json.loads(json.dumps(self.finished(text, **fields).message(self.tokenizer)))
        self.messages.append(message)
        return message


@cache
def tokenizer_of(name: str) -> Tokenizer:
    """The published one; for GLM, whose file is not there, Qwen's with GLM's control tokens."""
    if name != GLM:
        found = Tokenizer.from_folder(CHECKPOINTS / name)
        assert found is not None
        return found
    backend = tokenizers.Tokenizer.from_file(str(CHECKPOINTS / QWEN / "tokenizer.json"))
    backend.add_tokens([tokenizers.AddedToken(mark, normalized=False) for mark in GLM_MARKS])
    return Tokenizer(backend, {})


def odd_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of a text, mostly two letters each; control tokens are themselves."""
    names = sorted(filter(None, map(tokenizer.id_to_token, tokenizer.control_ids)), key=len, reverse=True)
    ids: list[int] = []
    for piece in re.split(f"({'|'.join(map(re.escape, names))})", text):
        if piece in names:
            ids.append(tokenizer.token_to_id(piece) or 0)
        else:
            for begin in range(0, len(piece), 2):
                ids += tokenizer.encode(piece[begin : begin + 2], add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    return ids


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
