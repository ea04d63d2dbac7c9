"""Variables and fields that a chat template does not read: some are refused, of others one warning is given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from pio.errors import CheckpointError, ConfigError
from pio.text.messages import REASONING
from pio.text.template.drops import has_no_effect
from pio.text.template.inputs import Inputs, Place

if TYPE_CHECKING:
    from pio.text.template.facts import TemplateFacts

_log = logging.getLogger("pio")
_IS_TEXT = "the result is text; tokenize turns it into token ids"
# Arguments of transformers' apply_chat_template that are no variables of a template, and what to do instead.
_ARGUMENTS: Final = {
    **dict.fromkeys(("tokenize", "return_dict", "return_tensors", "return_assistant_tokens_mask"), _IS_TEXT),
    **dict.fromkeys(("padding", "truncation", "max_length"), "prompts are neither padded nor cut; see fit_messages"),
    "tokenizer_kwargs": _IS_TEXT,
    "chat_template": "change chat_template.jinja in the model's folder, or render the prompt yourself",
    "conversation": "give the messages as the first argument",
    "sanitize_control_tokens": "load the model with literal_messages=True, where control tokens in messages stay text",
}
# What tells a client which message or call another belongs to, and is no text for the model.
_LABELS: Final = frozenset(("role", "content", "tool_calls", "tool_call_id", "id", "type"))


def check_variables(variables: Mapping[str, Any], facts: TemplateFacts) -> None:
    """Refuse arguments of transformers that no template knows, unless they ask for nothing.

    Raises:
        ConfigError: There is one.
    """
    for name, value in variables.items():
        if value and name in _ARGUMENTS and name not in facts.reads:
            raise ConfigError(f"{name} is no variable of a chat template; {_ARGUMENTS[name]}")


class UnreadNames:
    """Warns of what a model's templates do not read: once for each name.

    One object serves any number of threads, and signal handlers: there is no lock.
    """

    def __init__(self, where: str) -> None:
        """Begin without names.

        Args:
            where: The model, for messages.
        """
        self._where = where
        self._looked_at: dict[tuple[str, ...], object] = {}

    def tell_variables(self, variables: Mapping[str, Any], facts: TemplateFacts) -> None:
        """Warn of variables that the template does not read; None, and what is empty, asks for nothing."""
        for name, value in variables.items():
            if value is not None and name not in facts.reads and name not in _ARGUMENTS and self._is_new(name):
                self._warn(f"the variable {name}")

    def tell_fields(
        self,
        messages: list[dict[str, Any]],
        facts: TemplateFacts,
        inputs: Inputs,
        prompt: str,
        render: Callable[[Inputs], str],
    ) -> None:
        """Warn of fields of messages that do not reach the prompt.

        Args:
            messages: As they were given.
            facts: Of the template.
            inputs: What was rendered.
            prompt: What came of it.
            render: Renders other inputs in the same way.
        """
        if "messages" not in facts.reads:
            if self._is_new("messages"):
                self._say("reads no messages, so the model does not see them")
            return
        if not facts.walks_messages and len(messages) > 1 and self._is_new("messages"):
            self._say("reads messages at certain places only, so the model may not see the others")
        for index, message in enumerate(messages):
            role = message["role"]
            for field in _fields(message):
                if not self._is_new(role, field):
                    continue
                if field == "reasoning_content":  # templates leave out what was thought before earlier answers
                    unread = facts.words.isdisjoint(REASONING)
                elif field.startswith("content"):
                    unread = field.rpartition(".")[2] not in facts.words
                else:
                    unread = self._has_no_effect(("messages", index, field), inputs, prompt, render)
                if unread and self._is_new(field):
                    self._warn(f'"{field}" of messages (role {role!r})')

    def _has_no_effect(self, path: Place, inputs: Inputs, prompt: str, render: Callable[[Inputs], str]) -> bool:
        try:
            return has_no_effect(inputs, path, "9071", prompt, render)
        except CheckpointError:  # with another text it is more than the template may do
            return False

    def _is_new(self, *names: str) -> bool:
        mine = object()
        return self._looked_at.setdefault(names, mine) is mine  # atomic: one of all who ask at once hears yes

    def _warn(self, what: str) -> None:
        self._say(f"does not read {what}, so the model does not see it")

    def _say(self, what: str) -> None:
        _log.warning("%s: the chat template %s", self._where, what)


def _fields(message: dict[str, Any]) -> Iterator[str]:
    """Return the names of what a message holds beside its text and its calls; those of its parts as content[].name."""
    for field, value in message.items():
        if not value or field in _LABELS or field == "thinking" or (field == "name" and message["role"] == "tool"):
            continue
        if field != "reasoning" or "reasoning_content" not in message:
            yield field
    content = message.get("content")
    for part in cast("list[dict[str, Any]]", content) if isinstance(content, list) else ():
        yield from (f"content[].{field}" for field, value in part.items() if value and field not in ("type", "text"))
