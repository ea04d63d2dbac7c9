"""The chat template of a model folder: a conversation becomes the one text that the model continues."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pio.errors import CheckpointError, ConfigError, PioError
from pio.loading.json_file import parse_object
from pio.loading.messages import check_messages, check_tools, flatten_text, plain
from pio.loading.model_file import find, read_limited, shown
from pio.loading.tokenizer import special_tokens, tokenizer_config
from pio.shelter import sheltered

if TYPE_CHECKING:
    import jinja2

MAX_TEMPLATE_CHARACTERS = 64_000
_DEFAULT, _WITH_TOOLS = "default", "tool_use"


class ChatTemplate:
    """Renders conversations as the model was trained to read them, and as transformers renders them.

    Thinking is a matter of the template and the model: pass ``enable_thinking=False`` where the template knows it
    (Qwen3 then writes an empty ``<think>`` block into the prompt). ``/think`` and ``/no_think`` in a message are
    instructions to the model; they stay in the text untouched.

    One object serves any number of threads.

    Attributes:
        sources: Templates by name; most models have ``"default"`` alone, some also ``"tool_use"``.
        special_tokens: What the template finds under ``bos_token``, ``eos_token`` and so on.
    """

    def __init__(
        self,
        sources: str | Mapping[str, str] | None,
        *,
        special_tokens: Mapping[str, str] | None = None,
        where: str = "this model",
    ) -> None:
        """Hold templates; they are compiled when they are first used.

        Args:
            sources: One template, several by name, or None where the model has none.
            special_tokens: Special tokens by name.
            where: The folder, for messages.

        Raises:
            CheckpointError: A template is longer than 64,000 characters.
        """
        self.sources = {_DEFAULT: sources} if isinstance(sources, str) else dict(sources or {})
        self.special_tokens = dict(special_tokens or {})
        self._where = where
        for name, source in self.sources.items():
            if len(source) > MAX_TEMPLATE_CHARACTERS:
                raise CheckpointError(
                    f"the chat template {name!r} of {where} has {len(source)} characters, at most "
                    f"{MAX_TEMPLATE_CHARACTERS} were expected; download the model again"
                )

    @classmethod
    def from_folder(cls, path: str | Path) -> ChatTemplate:
        """Find the template of a model folder.

        ``chat_template.jinja`` wins over ``tokenizer_config.json``, and that over ``chat_template.json``. A folder
        with none of them gives an object that is false, and whose ``render`` says what to do.

        Raises:
            CheckpointError: A file is too large, damaged or not what it should be.
        """
        folder = Path(path)
        config = tokenizer_config(folder)
        tokens = special_tokens(config, str(folder / "tokenizer_config.json"))
        sources = _jinja_file(folder)
        if sources is None:
            sources = _sources(config.get("chat_template"), folder / "tokenizer_config.json")
        if sources is None:
            file = find(folder, "chat_template.json")
            if file is not None:
                found = parse_object(read_limited(file, 4 * MAX_TEMPLATE_CHARACTERS), str(file))
                sources = _sources(found.get("chat_template"), file)
        return cls(sources, special_tokens=tokens, where=str(folder))

    def __bool__(self) -> bool:
        return bool(self.sources)

    def render(
        self,
        messages: object,
        *,
        tools: object = None,
        documents: object = None,
        add_generation_prompt: bool = True,
        **variables: object,
    ) -> str:
        """Return the text of a conversation.

        Args:
            messages: Dicts with ``role`` and ``content``, and what else the template reads (``tool_calls``,
                ``reasoning_content``). A list of text parts is joined where the template expects one text.
            tools: JSON schemas of functions the model may call.
            documents: Dicts with ``title`` and ``text``, for templates that know them.
            add_generation_prompt: Whether to end with the beginning of an answer.
            **variables: What else the template reads, such as ``enable_thinking=False``; plain data.

        Raises:
            ConfigError: The folder has no template, a message has the wrong shape, the template does not use the tools
                or documents, or it refuses the conversation.
            CheckpointError: The template is no valid Jinja, reaches for Python internals, or works beyond all bounds.
        """
        conversation = check_messages(messages)
        schemas, texts = check_tools(tools), check_tools(documents, "documents")
        names = self.special_tokens | {name: plain(value, name) for name, value in variables.items()}
        source = self._choose(schemas is not None)
        compiled = self._compiled(source)
        for name, given in (("tools", schemas), ("documents", texts)):
            if given and name not in compiled.reads:
                raise ConfigError(
                    f"{name}: the chat template of {self._where} has no place for {name}, so the model would not see "
                    f"them; leave {name} out, or load a model that was trained with them"
                )
        if not compiled.reads_parts:
            conversation = flatten_text(conversation)
        return self._run(
            compiled.template,
            {
                **names,
                "messages": conversation,
                "tools": schemas,
                "documents": texts,
                "add_generation_prompt": bool(add_generation_prompt),
            },
        )

    def _choose(self, with_tools: bool) -> str:
        if with_tools and _WITH_TOOLS in self.sources:
            return self.sources[_WITH_TOOLS]
        if _DEFAULT in self.sources:
            return self.sources[_DEFAULT]
        if self.sources:
            raise ConfigError(
                f"{self._where} has the chat templates {', '.join(map(shown, self.sources))} and no 'default'; "
                "render the prompt yourself and give it to generate_text"
            )
        raise ConfigError(
            f"{self._where} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json), "
            "so it is a base model or incomplete; give plain text to generate_text, or add the template"
        )

    def _compiled(self, source: str) -> _Compiled:
        found = _compile(source)
        if isinstance(found, str):
            raise CheckpointError(f"the chat template of {self._where} cannot be used: {found}; download it again")
        return found

    def _run(self, template: jinja2.Template, names: dict[str, Any]) -> str:
        from pio.loading.template_budget import Budget
        from pio.loading.template_sandbox import BUDGET

        try:
            return "".join(template.generate({**names, BUDGET: Budget(names.values())}))
        except Exception as error:
            problem = _explain(error, self._where)
        # Raised here and not above, so that the error does not keep what the template made alive.
        raise problem


class _Compiled(NamedTuple):
    template: jinja2.Template
    reads_parts: bool  # whether it looks into a content that is a list
    reads: frozenset[str]  # the names in it


@lru_cache(maxsize=32)
def _compile(source: str) -> _Compiled | str:
    """Compile a template, or say why it cannot be; hostile ones are remembered too."""
    return sheltered(lambda: _compile_here(source))


def _compile_here(source: str) -> _Compiled | str:
    import jinja2
    from jinja2 import nodes

    from pio.loading.template_sandbox import sandbox

    try:
        tree = sandbox().parse(source)
        reads_parts = _reads_parts(tree)  # before compiling, which changes the tree
        reads = frozenset(name.name for name in tree.find_all(nodes.Name))
        return _Compiled(sandbox().from_string(tree), reads_parts, reads)
    except jinja2.TemplateSyntaxError as error:
        return f"{str(error.message)[:300]} (line {error.lineno})"
    except (RecursionError, MemoryError):
        return "it is nested too deeply"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"


def _reads_parts(tree: Any) -> bool:
    """Say whether a template looks into the parts of a message's content.

    Where it does not, a list of text parts would be dropped or written out as Python, so its texts are joined first.
    """
    from jinja2 import nodes

    def names_content(node: Any) -> bool:
        found = [node, *node.find_all((nodes.Name, nodes.Getattr, nodes.Const))]
        return any("content" in str(getattr(part, name, "")) for part in found for name in ("name", "attr", "value"))

    walks = [loop.iter for loop in tree.find_all(nodes.For)]
    walks += [
        step.node
        for step in tree.find_all(nodes.Filter)
        if step.node is not None and step.name in ("map", "select", "selectattr", "reject", "rejectattr", "join")
    ]
    walks += [
        step.node
        for step in tree.find_all(nodes.Getitem)
        if isinstance(step.arg, nodes.Const) and isinstance(step.arg.value, int)
    ]
    return any(
        names_content(walk)
        for walk in walks
        # ``content.split(x)[0]`` takes a piece of text, not a part.
        if not any(walk.find_all(nodes.Call)) and not isinstance(walk, nodes.Call)
    )


def _explain(error: Exception, where: str) -> PioError:
    import jinja2
    from jinja2.exceptions import SecurityError

    from pio.loading.template_budget import TemplateLimit
    from pio.loading.template_globals import RefusedError

    text = str(error)[:500]
    if isinstance(error, PioError):
        return error
    if isinstance(error, RefusedError):
        return ConfigError(f"the chat template of {where} refuses this conversation: {text}")
    if isinstance(error, TemplateLimit):
        return CheckpointError(f"the chat template of {where} was stopped: {text}; do not trust this folder")
    if isinstance(error, SecurityError):
        return CheckpointError(
            f"the chat template of {where} reaches for Python internals: {text}; do not trust this folder"
        )
    if isinstance(error, (RecursionError, MemoryError, OverflowError)):
        return CheckpointError(
            f"the chat template of {where} was stopped: {type(error).__name__} {text}; do not trust this folder"
        )
    if isinstance(error, jinja2.TemplateAssertionError) or text.startswith(("No filter named", "No test named")):
        return CheckpointError(f"the chat template of {where} cannot be used: {text}; render the prompt yourself")
    return ConfigError(
        f"the chat template of {where} cannot render this conversation ({type(error).__name__}: {text}); "
        "check the roles, contents, tools and variables that it was given"
    )


def _jinja_file(folder: Path) -> dict[str, str] | None:
    file = find(folder, "chat_template.jinja")
    if file is None:
        return None
    try:
        return {_DEFAULT: read_limited(file, 4 * MAX_TEMPLATE_CHARACTERS).decode("utf-8")}
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8 text (byte {error.start}); download it again") from None


def _sources(value: Any, file: Path) -> dict[str, str] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return {_DEFAULT: value}
    found: dict[str, str] = {}
    for item in cast("list[object]", value) if isinstance(value, list) else [cast("object", value)]:
        entry = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        name, source = entry.get("name"), entry.get("template")
        if not isinstance(name, str) or not isinstance(source, str):
            raise CheckpointError(
                f"{file}: chat_template holds {shown(cast('object', item))}; a string or a list of objects with name "
                "and template was expected, download the file again"
            )
        found[name] = source
    return found
