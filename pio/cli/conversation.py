"""A conversation with a model: its turns, what is sent of them, and how the model is told to think or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pio.engine.generation import Generation
    from pio.plugin import TextModelPlugin
    from pio.text.reasoning import Kind

ANSWER_TOKENS = 1024


class Conversation:
    """Messages so far.

    Attributes:
        thinking: True and False switch the model's reasoning on and off; None leaves it to the model.
        messages: Dicts with ``role`` and ``content``, oldest first, without the system message.
        waiting: Parts of the next message: pictures and videos that go before its text.
        system: What the model is told before everything else.
        last: The last answer, where it came to its end.
    """

    def __init__(self, model: TextModelPlugin, fields: dict[str, Any], system: str | None = None) -> None:
        """Begin an empty conversation.

        Args:
            model: A loaded model with a chat template.
            fields: Sampling fields of every answer. Without ``max_new_tokens`` an answer has at most
                ``ANSWER_TOKENS`` tokens, and one of a model that thinks the rest of the context.
            system: The system message.
        """
        self._model = model
        self._fields = fields
        self.thinking: bool | None = None
        self.system = system
        self.messages: list[dict[str, Any]] = []
        self.waiting: list[dict[str, Any]] = []
        self.last: Generation | None = None
        sources = model.loaded.prompts.chat_template.sources.values()
        self._has_switch = any("enable_thinking" in source for source in sources)

    def clear(self) -> None:
        """Forget all messages, and the pictures of the next one; the system message stays."""
        self.messages.clear()
        self.waiting.clear()

    def ask(self, text: str) -> Iterator[tuple[Kind, str]]:
        """Send a message and stream the answer, told apart from the reasoning before it.

        What has come so far is kept when the iterator is closed or interrupted; a message that cannot be sent is not,
        and the pictures that were to go with it go with none.

        Raises:
            ConfigError: The model has no chat template.
            CapacityError: The message alone is longer than the context.
        """
        variables: dict[str, Any] = {}
        if self.thinking is not None and self._has_switch:
            variables["enable_thinking"] = self.thinking
        seen, self.waiting = self.waiting, []
        sent = [*self.messages, _said(seen, text + self._soft_switch())]
        if self.system is not None:
            sent.insert(0, {"role": "system", "content": self.system})
        encoded = self._model.loaded.prompts.encode(sent, **variables)
        fields: dict[str, Any] = {} if encoded.may_think else {"max_new_tokens": ANSWER_TOKENS}
        fields.update(self._fields)
        if self.thinking is False and not encoded.may_think:
            fields.pop("max_thinking_tokens", None)  # there is none, as was asked for
        room, answer = self._room(fields), ""
        if len(encoded.token_ids) > room:
            fitting = self._model.fit_messages(sent, room, **variables)
            encoded = self._model.loaded.prompts.encode(fitting, **variables)
        handle = self._model.submit(encoded, **fields)
        said: dict[str, Any] | None = None
        try:
            self.messages.append(_said(seen, text))
            self.last = None
            for event in handle.events():
                answer += event.text if event.kind == "text" else ""
                if event.text and event.kind != "markup":
                    yield event.kind, event.text
            self.last = handle.result()
            said = self.last.message  # with the tokens that it was, which the next prompt goes on from
            said.pop("reasoning_content", None)  # earlier turns have none
        finally:
            handle.cancel()
            self.messages.append({"role": "assistant", "content": answer} if said is None else said)

    def _room(self, fields: Mapping[str, Any]) -> int:
        """Tokens for the prompt: what the answer may need is left free, but never more than half of the context."""
        context = self._model.metadata.context_length
        return context - min(int(fields.get("max_new_tokens", context)), context // 2)

    def _soft_switch(self) -> str:
        """What a message ends with where the template itself has no switch."""
        if self.thinking is None or self._has_switch:
            return ""
        return " /think" if self.thinking else " /no_think"


def _said(seen: Sequence[dict[str, Any]], text: str) -> dict[str, Any]:
    """What a user says: a text, behind pictures where there are some."""
    return {"role": "user", "content": [*seen, {"type": "text", "text": text}] if seen else text}
