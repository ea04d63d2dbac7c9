"""What a conversation says of tools: which the model sees, whether it must call one, and how its calls are found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pio.errors import ConfigError
from pio.text.calling.call_format import FORMATS, CallFormat, format_of
from pio.text.calling.calls import Calls
from pio.text.calling.tool_choice import ToolChoice
from pio.text.calling.toolbox import Toolbox
from pio.text.chat_template import ChatTemplate
from pio.text.messages import check_tools
from pio.text.reasoning import opens_reasoning
from pio.text.tokenizer import Tokenizer

_THINKING = "enable_thinking"


class ToolUse:
    """How one model is given tools. One object serves any number of threads."""

    def __init__(self, folder: str, template: ChatTemplate) -> None:
        """Look at nothing yet.

        Args:
            folder: Of the model, for messages.
            template: Writes its conversations; the calls that it writes are those that the model was trained on.
        """
        self._folder, self._template = folder, template
        self._format: tuple[CallFormat | None] | None = None

    def take(self, variables: dict[str, Any], named: str | None, *, answered: bool) -> Calls | None:
        """Take ``tool_choice`` out of the variables of a template, and the tools where the model is not to see them.

        Args:
            variables: Of the template; changed.
            named: The format of the plugin, for templates that write no calls.
            answered: Whether there will be an answer.

        Returns:
            How to find calls in the answer; None where they are text.

        Raises:
            ConfigError: ``tool_choice`` is none; or there will be an answer, and a tool has no name of its own, the
                format of calls is not known, or ``tool_choice`` contradicts what else is asked for.
        """
        given = variables.pop("tool_choice", None)
        choice, tools = ToolChoice.of(given), check_tools(variables.get("tools"))
        if not tools:
            if given is not None:
                raise ConfigError("tool_choice: there are no tools to choose from; give tools, or leave it out")
            return None
        if not choice.shows:
            del variables["tools"]
            return None
        if not answered:
            return None
        toolbox = Toolbox(tools)
        form = self._known(named)
        if not choice.forced:
            return Calls(form, toolbox)
        if choice.tool is not None and (problem := toolbox.problem_of_name(choice.tool)):
            raise ConfigError(f"tool_choice: {problem}")
        self._make_room(variables)
        return Calls(form, toolbox, form.begin(toolbox, choice.tool))

    def finish(self, calls: Calls, prompt: str, ids: Sequence[int], tokenizer: Tokenizer) -> Calls:
        """Return the same for the prompt that came of it.

        Args:
            calls: As ``take`` returned it.
            prompt: The text.
            ids: Its tokens.
            tokenizer: That made them.

        Raises:
            ConfigError: The answer is to begin with a call, and the prompt with reasoning.
        """
        if calls.begun and opens_reasoning(prompt.removesuffix(calls.begun)):
            raise ConfigError(
                f"tool_choice: the chat template of {self._folder} begins every answer with reasoning, so that none "
                'can begin with a call; give "auto"'
            )
        special = tokenizer.special_ids & frozenset(map(tokenizer.token_to_id, calls.form.body.tags))
        salt = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
        begun = tokenizer.encode(calls.begun, add_special_tokens=False) if calls.begun else []
        known = tuple(begun) if list(ids[len(ids) - len(begun) :]) == begun else ()
        return replace(calls, begun_ids=known, tag_ids=special, salt=salt)

    def format_of(self, named: str | None) -> CallFormat | None:
        """Return the format of calls; None where it is not known.

        Args:
            named: The format of the plugin, for templates that write no calls.
        """
        if self._format is None:
            self._format = (format_of(self._template),)
        return self._format[0] or (FORMATS.get(named) if named and not self._writes_calls() else None)

    def _make_room(self, variables: dict[str, Any]) -> None:
        """See to it that an answer can begin with a call."""
        if variables.get("continue_final_message") or variables.get("add_generation_prompt") is False:
            raise ConfigError(
                'tool_choice: the answer is to begin with a call, and the last message is continued; give "auto", or a '
                "conversation that asks for an answer"
            )
        if variables.get(_THINKING):
            raise ConfigError(
                "tool_choice: an answer that begins with a call has no reasoning before it; leave enable_thinking out, "
                'or give "auto"'
            )
        if any(_THINKING in source for source in self._template.sources.values()):
            variables[_THINKING] = False

    def _known(self, named: str | None) -> CallFormat:
        """The format of calls.

        Raises:
            ConfigError: It is not known.
        """
        found = self.format_of(named)
        if found is None:
            raise ConfigError(
                f"tools: the chat template of {self._folder} writes calls in no format that is known "
                f"({', '.join(FORMATS)}), so they could not be told from the answer; leave tools out, or render the "
                "prompt with apply_chat_template, and give its text or its token ids to generate"
            )
        return found

    def _writes_calls(self) -> bool:
        return any("tool_calls" in source for source in self._template.sources.values())
