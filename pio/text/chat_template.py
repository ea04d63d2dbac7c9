"""The chat template of a model folder: a conversation becomes the one text that the model continues."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pio.errors import CheckpointError, ConfigError
from pio.loading.model_file import shown
from pio.text.content_parts import TEXT_ONLY
from pio.text.final_message import cut, field_of, marked
from pio.text.messages import check_messages, check_tools
from pio.text.plain_data import plain
from pio.text.template.compiled import CompiledTemplate, compiled
from pio.text.template.drops import find_dropped
from pio.text.template.inputs import YOURSELF, Inputs, Place, adapted
from pio.text.template_files import DEFAULT, MAX_TEMPLATE_CHARACTERS, find_templates
from pio.text.tokenizer_config import special_tokens, tokenizer_config
from pio.text.unread_names import UnreadNames, check_variables

if TYPE_CHECKING:
    import jinja2

_WITH_TOOLS = "tool_use"


class Conversation(NamedTuple):
    """What a chat template is given, as plain data in one form."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    documents: list[dict[str, Any]] | None
    variables: dict[str, Any]


class ChatTemplate:
    """Renders conversations as the model was trained to read them, and as transformers renders them.

    Thinking is a matter of the template and the model: pass ``enable_thinking=False`` where the template knows it
    (Qwen3 then writes an empty ``<think>`` block into the prompt). ``/think`` and ``/no_think`` in a message are
    instructions to the model; they stay in the text untouched.

    One object serves any number of threads.

    Attributes:
        sources: Templates by name; most models have ``"default"`` alone, some also ``"tool_use"``.
        special_tokens: What the template finds under ``bos_token``, ``eos_token`` and so on.
        modalities: What the model takes: "text", and perhaps "image", "audio", "video", "file".
    """

    def __init__(
        self,
        sources: str | Mapping[str, str] | None,
        *,
        special_tokens: Mapping[str, str] | None = None,
        modalities: Collection[str] = TEXT_ONLY,
        where: str = "this model",
    ) -> None:
        """Hold templates; they are compiled when they are first used.

        Args:
            sources: One template, several by name, or None where the model has none.
            special_tokens: Special tokens by name.
            modalities: What the model takes besides "text": "image", "audio", "video", "file". What it does not take
                is refused, whatever the template would do.
            where: The folder, for messages.

        Raises:
            CheckpointError: A template is longer than 64,000 characters.
        """
        self.sources = {DEFAULT: sources} if isinstance(sources, str) else dict(sources or {})
        self.special_tokens = dict(special_tokens or {})
        self.modalities = frozenset(modalities) | TEXT_ONLY
        self._where = where
        self._unread = UnreadNames(where)
        for name, source in self.sources.items():
            if len(source) > MAX_TEMPLATE_CHARACTERS:
                raise CheckpointError(
                    f"the chat template {name!r} of {where} has {len(source)} characters, at most "
                    f"{MAX_TEMPLATE_CHARACTERS} were expected; download the model again"
                )

    @classmethod
    def from_folder(cls, path: str | Path, *, modalities: Collection[str] = TEXT_ONLY) -> ChatTemplate:
        """Find the template of a model folder, for a model that takes these modalities.

        ``chat_template.jinja`` wins over ``tokenizer_config.json``, and that over ``chat_template.json``. A folder
        with none of them gives an object that is false, and whose ``render`` says what to do.

        Raises:
            CheckpointError: A file is too large, damaged or not what it should be.
        """
        folder = Path(path)
        config = tokenizer_config(folder)
        tokens = special_tokens(config, str(folder / "tokenizer_config.json"))
        sources = find_templates(folder, config)
        return cls(sources, special_tokens=tokens, modalities=modalities, where=str(folder))

    def __bool__(self) -> bool:
        return bool(self.sources)

    def render(
        self,
        messages: object,
        *,
        tools: object = None,
        documents: object = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | str | None = None,
        **variables: object,
    ) -> str:
        """Return the text of a conversation.

        Args:
            messages: Dicts (or pydantic models, or dataclasses) with ``role`` and ``content``, and what else the
                template reads (``tool_calls``, ``reasoning_content``), as ``check_messages`` takes them. A list of
                text parts is joined where the template expects one text, and arguments of tool calls may be JSON text.
            tools: JSON schemas of functions the model may call.
            documents: Dicts with ``title`` and ``text``, for templates that know them.
            add_generation_prompt: Whether to end with the beginning of an answer; by default unless the last message
                is continued.
            continue_final_message: Whether to leave the last message open, so that the model goes on with it; or the
                name of the field that is left open, such as ``"reasoning_content"``.
            **variables: What else the template reads, such as ``enable_thinking=False``; plain data. One warning is
                logged for each name that it does not read.

        Raises:
            ConfigError: The folder has no template, a message has the wrong shape, the template leaves out a message,
                the tools or the documents, or it refuses the conversation.
            CheckpointError: The template is no valid Jinja, reaches for Python internals, or works beyond all bounds.
        """
        return self.write(
            self.checked(messages, tools=tools, documents=documents, **variables),
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )

    def checked(
        self, messages: object, *, tools: object = None, documents: object = None, **variables: object
    ) -> Conversation:
        """Return what ``render`` takes as plain data in one form, whatever client wrote it.

        Raises:
            ConfigError: A message, a tool or a variable has the wrong shape.
        """
        return Conversation(
            check_messages(messages, self.modalities),
            check_tools(tools),
            check_tools(documents, "documents"),
            {name: plain(value, name) for name, value in variables.items()},
        )

    def write(
        self,
        conversation: Conversation,
        *,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | str | None = None,
    ) -> str:
        """Return the text of a conversation that was checked; arguments and errors as ``render``."""
        messages, schemas, texts, _ = conversation
        template, facts = self._compiled(source := self._choose(schemas is not None))
        check_variables(conversation.variables, facts)
        if not source.strip():
            raise ConfigError(
                f"messages: the chat template of {self._where} is empty, so the model would not see them; download the "
                f"template again, or {YOURSELF}"
            )
        for name, value in (("tools", schemas), ("documents", texts)):
            if value and name not in facts.reads:
                raise ConfigError(self._has_no_place(name))
        field = field_of(continue_final_message)
        if field and add_generation_prompt:
            raise ConfigError("continue_final_message and add_generation_prompt exclude each other; give one of them")
        names = self._names(conversation, not field if add_generation_prompt is None else bool(add_generation_prompt))
        inputs, open_text = Inputs(adapted(messages, facts), schemas, texts), ""
        if field:
            opened, open_text = marked(inputs.messages, field)
            inputs = inputs._replace(messages=opened)

        def render(given: Inputs) -> str:
            return self._run(template, {**names, **given._asdict()})

        prompt = render(inputs)
        dropped = find_dropped(inputs, prompt, source, facts, render)
        if dropped:
            raise ConfigError(self._dropped(dropped, inputs))
        self._unread.tell_variables(conversation.variables, facts)
        self._unread.tell_fields(messages, facts, inputs, prompt, render)
        return cut(prompt, open_text, self._where) if field else prompt

    def outline(self, conversation: Conversation, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        """Return what the template writes where other messages take the place of a conversation's.

        What it leaves out of them is not looked for.

        Args:
            conversation: That was checked, and written.
            messages: Checked, too.
            add_generation_prompt: Whether to end with the beginning of an answer.

        Raises:
            ConfigError: The template refuses them.
            CheckpointError: The template works beyond all bounds.
        """
        template, facts = self._compiled(self._choose(conversation.tools is not None))
        given = Inputs(adapted(messages, facts), conversation.tools, conversation.documents)
        return self._run(template, {**self._names(conversation, add_generation_prompt), **given._asdict()})

    def _names(self, conversation: Conversation, add_generation_prompt: bool) -> dict[str, Any]:
        """What the template reads beside what is said."""
        return {
            **self.special_tokens,
            **conversation.variables,
            "add_generation_prompt": add_generation_prompt,
        }

    def _has_no_place(self, name: str) -> str:
        return (
            f"{name}: the chat template of {self._where} has no place for {name}, so the model would not see them; "
            f"leave {name} out, or load a model that was trained with them"
        )

    def _dropped(self, path: Place, inputs: Inputs) -> str:
        if path[0] != "messages":
            return self._has_no_place(path[0])
        index: int = path[1]
        role: str = inputs.messages[index]["role"]
        fits = ""
        if role not in ("system", "user", "assistant", "tool"):
            fits = 'write it in the role "system"' if role == "developer" else 'write it in the role "user" or "system"'
        elif path[2] == "tool_calls":
            fits = "write the call into the content"
        elif path[2:] == ("content",) and role == "system":
            fits = "put its text into the first message"
        elif path[2:] == ("content",):
            fits = 'give its content as [{"type": "text", "text": ...}], or in a message of its own'
        what = "content" if path[2] == "content" else f"tool_calls[{path[3]}]"
        return (
            f"messages[{index}] (role {shown(role)}): the chat template of {self._where} leaves out its {what}, so "
            f"the model would not see it; {fits}, or {YOURSELF}"
        )

    def _choose(self, with_tools: bool) -> str:
        if with_tools and _WITH_TOOLS in self.sources:
            return self.sources[_WITH_TOOLS]
        if DEFAULT in self.sources:
            return self.sources[DEFAULT]
        if self.sources:
            raise ConfigError(
                f"{self._where} has the chat templates {', '.join(map(shown, self.sources))} and no 'default'; "
                "render the prompt yourself and give it to generate_text"
            )
        raise ConfigError(
            f"{self._where} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json), "
            "so it is a base model or incomplete; give plain text to generate_text, or add the template"
        )

    def _compiled(self, source: str) -> CompiledTemplate:
        found = compiled(source)
        if isinstance(found, str):
            raise CheckpointError(
                f"the chat template of {self._where} cannot be used: {found}; download it again, or {YOURSELF}"
            )
        return found

    def _run(self, template: jinja2.Template, names: dict[str, Any]) -> str:
        from pio.text.template.budget import Budget
        from pio.text.template.errors import explained
        from pio.text.template.sandbox import BUDGET

        try:
            return "".join(template.generate({**names, BUDGET: Budget(names.values())}))
        except Exception as error:
            problem = explained(error, self._where, len(names["messages"]))
        # Raised here and not above, so that the error does not keep what the template made alive.
        raise problem
