"""``pio generate``: one prompt, one answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pio.cli import options
from pio.cli.console import note, note_unfinished, write, write_json
from pio.cli.loading import check_fields, loaded_model, require_chat
from pio.cli.pictures import Seen, find_picture, find_video, require_sight
from pio.cli.prompt import SHOWN_FIELDS, SHOWN_PROMPT, read_prompt
from pio.cli.streams import require_text
from pio.errors import ConfigError
from pio.system import HERE

if TYPE_CHECKING:
    from pio.engine.generation import Generation, TokenLogprobs
    from pio.plugin import TextModelPlugin


def generate(
    context: typer.Context,
    model: options.Model = "demo",
    prompt: Annotated[
        str | None,
        typer.Argument(help="The text to go on with; without it, or with -, what is piped in.", show_default=False),
    ] = None,
    prefix: options.Prefix = None,
    suffix: options.Suffix = None,
    image: options.Image = None,
    video: options.Video = None,
    fps: options.Fps = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask the prompt as a question, by the chat template.")] = False,
    echo: options.Echo = None,
    json: options.Json = False,
    stats: Annotated[bool, typer.Option("--stats", help="Write tokens and speed to standard error.")] = False,
    max_new_tokens: options.MaxNewTokens = None,
    min_new_tokens: options.MinNewTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    presence_penalty: options.PresencePenalty = None,
    frequency_penalty: options.FrequencyPenalty = None,
    no_repeat_ngram_size: options.NoRepeatNgramSize = None,
    logit_bias: options.LogitBias = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    stop_token_ids: options.StopTokenIds = None,
    ignore_eos: options.IgnoreEos = False,
    include_stop: options.IncludeStop = False,
    special_tokens: options.SpecialTokens = False,
    logprobs: options.Logprobs = None,
    answers: options.Answers = None,
    plugin: options.Plugin = None,
    profile: options.Profile = None,
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
    mmap: options.Mmap = None,
    progress: options.Progress = None,
    verbose: options.Verbose = False,
) -> None:
    """Go on with a prompt, and write the answer as it comes. With pictures or videos the prompt asks about them."""
    given = dict(locals())
    gap = {n: require_text(given[n], f"--{n}") for n in ("prefix", "suffix") if given[n] is not None}
    seen = _seen(given)
    chat = chat or bool(seen)
    _check_together(given, gap, seen)
    fields = options.sampling_fields(given)
    named = getattr(context.get_parameter_source("model"), "name", "") != "DEFAULT"
    if seen:
        require_sight(model, [one.kind for one in seen], plugin)
    text = read_prompt(model, prompt, named=named) if not gap else ""
    shown = text is None
    if text is None:
        text, fields = SHOWN_PROMPT, {**SHOWN_FIELDS, **fields}
    if chat:
        require_chat(model)
    check_fields(fields)
    began = time.perf_counter()
    with loaded_model(model, options.runtime_options(given)) as loaded:
        load_seconds = time.perf_counter() - began
        parts = [*(one.part(loaded) for one in seen), {"type": "text", "text": text}] if seen else text
        question: Any = None if gap else [{"role": "user", "content": parts}] if chat else text
        handle = loaded.submit(question, **gap, **fields)
        around = (gap.get("prefix", text), gap.get("suffix", "")) if (shown if echo is None else echo) else ("", "")
        if not json:
            write(around[0] + ("\n" if chat and echo else ""))
        first = None
        if not json and answers in (None, 1):
            first = _stream(iter(handle), around[1])
        result = handle.result()
        if json:
            write_json(_record(model, loaded, result, load_seconds))
        elif result.samples:
            write("\n".join(f"--- {i + 1}\n{sample.text}" for i, sample in enumerate(result.samples)) + "\n")
    for answer in result.samples or (result,):
        note_unfinished(answer)
    if stats:
        note(_line(result, load_seconds, first))


def _seen(given: dict[str, Any]) -> list[Seen]:
    """Return the pictures and videos among the options, in the order in which the model sees them."""
    if given["fps"] is not None and not given["video"]:
        raise ConfigError("--fps is for --video; leave it out, or give a video")
    pictures = [find_picture(path) for path in given["image"] or ()]
    return [*pictures, *(find_video(path, given["fps"]) for path in given["video"] or ())]


def _check_together(given: dict[str, Any], gap: dict[str, str], seen: list[Seen]) -> None:
    """Refuse options that contradict each other."""
    if given["logprobs"] is not None and not given["json"]:
        raise ConfigError("--logprobs only shows in JSON; add --json")
    if given["json"] and given["echo"] is not None:
        raise ConfigError("--echo and --no-echo are for text; leave them out with --json")
    if gap and seen:
        raise ConfigError("--image and --video are for questions; give them with a prompt, or leave them out")
    if gap and (given["chat"] or given["prompt"] is not None):
        raise ConfigError("--prefix and --suffix take the place of a prompt; give them without one, and without --chat")
    if given["literal_messages"] and not (given["chat"] or gap or seen):
        raise ConfigError("--literal-messages is for messages and gaps; add --chat, or leave it out")


def _stream(pieces: Iterator[str], behind: str) -> float | None:
    """Write the answer as it comes, and what stands behind it; return the seconds from process start to its first."""
    first, last = None, ""
    for last in pieces:
        write(last)
        if first is None:
            first = HERE.seconds_since_start()
    write(behind + ("" if (behind or last).endswith("\n") else "\n"))
    return first


def _record(name: str, model: TextModelPlugin, result: Generation, load_seconds: float) -> dict[str, Any]:
    """The answer as JSON has it."""
    about = {"model": name, "path": model.path, "plugin": model.manifest.name}
    return {**about, **_answer(result), "load_seconds": load_seconds}


def _answer(result: Generation) -> dict[str, Any]:
    """One answer, with its samples where there are several; everything in it has a name."""
    from dataclasses import asdict, replace

    record = asdict(replace(result, samples=()))
    del record["samples"]
    if result.logprobs is not None:
        record["logprobs"] = [_logprobs(token) for token in result.logprobs]
    if result.samples:
        record["samples"] = [_answer(sample) for sample in result.samples]
    return record


def _logprobs(token: TokenLogprobs) -> dict[str, Any]:
    top = [{"token_id": token_id, "logprob": logprob} for token_id, logprob in token.top]
    return {**token._asdict(), "top": top}


def _line(result: Generation, load_seconds: float, first: float | None) -> str:
    """Speed in one line."""
    timings, usage = result.timings, result.usage
    answers = result.samples or (result,)
    pictures = f" ({usage.image_tokens} of pictures)" if usage.image_tokens else ""
    parts = [
        f"{usage.prompt_tokens}{pictures} + {sum(a.usage.completion_tokens for a in answers)} tokens",
        f"{timings.tokens_per_second:.1f} tok/s",
        f"first token {timings.time_to_first_token:.3f} s after the prompt",
        f"loaded in {load_seconds:.2f} s",
    ]
    if first is not None:
        parts.insert(3, f"{first:.2f} s after the start of the process")
    return ", ".join(parts)
