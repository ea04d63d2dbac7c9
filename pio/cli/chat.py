"""``pio chat``: a conversation on the terminal, or over a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pio.cli import options
from pio.cli.console import complain, note, note_unfinished, write
from pio.cli.conversation import Conversation
from pio.cli.loading import check_fields, loaded_model, require_chat
from pio.cli.pictures import check_sight, dropped, find_picture, find_video, kind_of
from pio.cli.reader import edit_lines, next_message
from pio.cli.streams import require_text
from pio.errors import PioError
from pio.progress.stream import is_terminal
from pio.system import HERE

if TYPE_CHECKING:
    from pio.plugin import TextModelPlugin
    from pio.text.reasoning import Kind

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
HELP = f"""/clear          forget the conversation
/think          let the model think before it answers
/no_think       let it answer at once
/system TEXT    tell the model what it is to be; without TEXT, nothing
/image PATH     show a picture with what you say next, as does a path dropped here
/video PATH     show a video
/help           show this
/bye            leave, as do /exit, exit, quit and {HERE.end_of_input}; Ctrl-C stops an answer

A line that ends with \\ goes on with the next one, and lines between \"\"\" and \"\"\"
are one message. So is what you paste; Enter sends it."""
LEAVING = {"/bye", "/exit", "/quit", "exit", "quit", "exit()", "quit()"}


def chat(
    model: options.Model = "demo",
    system: Annotated[str | None, typer.Option("--system", help="What the model is to be.", show_default=False)] = None,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Whether it thinks before it answers.", show_default=False),
    ] = None,
    fps: options.Fps = None,
    max_new_tokens: options.MaxNewTokens = None,
    max_thinking_tokens: options.MaxThinkingTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    deadline: options.Deadline = None,
    plugin: options.Plugin = None,
    profile: options.Profile = None,
    device: options.Device = None,
    cuda_kernels: options.CudaKernels = None,
    gpu_memory: options.GpuMemory = None,
    offloaded_experts: options.OffloadedExperts = None,
    threads: options.Threads = None,
    context_length: options.ContextLength = None,
    dtype: options.Dtype = None,
    quantize: options.Quantize = None,
    quantize_policy: options.QuantizePolicy = None,
    activation_dtype: options.ActivationDtype = None,
    memory_limit: options.MemoryLimit = None,
    literal_messages: options.LiteralMessages = None,
    max_pixels: options.MaxPixels = None,
    allow_remote: options.AllowRemote = None,
    speculation: options.Speculation = None,
    max_draft_tokens: options.MaxDraftTokens = None,
    mmap: options.Mmap = None,
    prefix_cache: options.PrefixCache = None,
    prefix_cache_path: options.PrefixCachePath = None,
    prefix_cache_disk: options.PrefixCacheDisk = None,
    progress: options.Progress = None,
    verbose: options.Verbose = False,
) -> None:
    """Talk with a model; it remembers what was said. /help shows the commands."""
    given = dict(locals())
    fields = options.sampling_fields(given)
    if model == "demo":
        fields.setdefault("repetition_penalty", 1.15)
    check_fields(fields)
    require_chat(model)
    with loaded_model(model, options.runtime_options(given)) as loaded:
        conversation = Conversation(loaded, fields, system and require_text(system, "--system"))
        conversation.thinking = think
        table = _Table(model, loaded, conversation, fps)
        terminal = sys.stdin.isatty()
        if terminal:
            edit_lines()
            note(f'{model} is ready. /help shows the commands, """ begins several lines, {HERE.end_of_input} leaves.')
        while (text := next_message(terminal)) is not None and text.strip() not in LEAVING:
            if text.startswith("/") and (table.command(text.strip()) or _command(conversation, text.strip())):
                continue
            if (said := table.show(text)).strip():
                _answer(conversation, said, terminal)


def _command(conversation: Conversation, line: str) -> bool:
    """Do what a line that begins with / asks for; False where it is no command."""
    name, _, rest = line.partition(" ")
    if "\n" in line and name != "/system":
        return False  # pasted
    match name:
        case "/clear":
            conversation.clear()
            note("forgotten")
        case "/think" | "/no_think" if not rest:
            conversation.thinking = name == "/think"
            note("thinking is on" if conversation.thinking else "thinking is off")
        case "/system":
            conversation.system = rest.strip() or None
            note("system message set" if conversation.system else "system message removed")
        case "/help":
            note(HELP)
        case _:
            if " " in line or "/" in name[1:]:
                return False  # a path, or words to the model
            note(f"there is no command {name}; /help shows them")
    return True


def _answer(conversation: Conversation, text: str, terminal: bool) -> None:
    """Stream the answer; on a terminal Ctrl-C ends it, and nowhere does an error end the conversation."""
    style = _Style(is_terminal(sys.stdout))
    try:
        for kind, piece in conversation.ask(require_text(text, "the message", sys.stdin.encoding)):
            style.show(kind, piece)
    except KeyboardInterrupt:
        style.end()
        if not terminal:
            raise
        note("stopped")
    except PioError as error:
        style.end()
        complain(error)
    else:
        style.end()
        if conversation.last is not None:
            note_unfinished(conversation.last)


class _Table:
    """Where pictures and videos lie until the next message takes them along."""

    def __init__(self, name: str, model: TextModelPlugin, conversation: Conversation, fps: float | None) -> None:
        self._name, self._model, self._conversation, self._fps = name, model, conversation, fps
        self._takes = model.metadata.modalities

    def command(self, line: str) -> bool:
        """Do what a line asks for that shows something; False for any other line."""
        name, _, path = line.partition(" ")
        if name not in ("/image", "/video") or "\n" in line:
            return False
        if path.strip():
            self._lay(path, name, "what you say next")
        else:
            note(f"{name} takes the path of a file: {name} PATH")
        return True

    def show(self, text: str) -> str:
        """Lay down what a path at the end of a message names; return the message without it."""
        found = dropped(text)
        if found is None or (found[0] and kind_of(found[1]) not in self._takes):  # a text about files
            return text
        said, path = found
        self._lay(path, f"/{kind_of(path)}", "what you said" if said else "what you say next")
        return said

    def _lay(self, path: str, command: str, where: str) -> None:
        try:
            check_sight(self._name, ["image" if command == "/image" else "video"], self._takes)
            seen = find_picture(path, command) if command == "/image" else find_video(path, self._fps, command)
            self._conversation.waiting.append(seen.part(self._model))
        except PioError as error:
            complain(error)
        else:
            note(f"{Path(path.strip()).name[:80]} goes with {where}")


class _Style:
    """Writes reasoning dimmed on a terminal, and not at all elsewhere."""

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal
        self._last: Kind | None = None

    def show(self, kind: Kind, piece: str) -> None:
        if kind == "reasoning" and not self._terminal:
            return
        if self._terminal and kind != self._last:
            write(DIM if kind == "reasoning" else f"{PLAIN}\n\n" if self._last == "reasoning" else "")
        self._last = kind
        write(piece)

    def end(self) -> None:
        write((PLAIN if self._terminal and self._last == "reasoning" else "") + "\n")
