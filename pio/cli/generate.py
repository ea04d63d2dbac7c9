"""``pio generate``: one prompt, one answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pio.cli import options
from pio.cli.answer import call_line, show_answer
from pio.cli.console import note, note_unfinished, write, write_json
from pio.cli.loading import check_fields, loaded_model, require_chat
from pio.cli.pictures import Seen, find_picture, find_video, require_sight
from pio.cli.prompt import SHOWN_FIELDS, SHOWN_PROMPT, read_prompt
from pio.cli.streams import require_text
from pio.cli.tools import tool_fields
from pio.errors import ConfigError

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
    tools: options.Tools = None,
    tool_choice: options.ToolChoice = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask the prompt as a question, by the chat template.")] = False,
    echo: options.Echo = None,
    json: options.Json = False,
    stats: Annotated[bool, typer.Option("--stats", help="Write tokens and speed to standard error.")] = False,
    max_new_tokens: options.MaxNewTokens = None,
    max_thinking_tokens: options.MaxThinkingTokens = None,
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
    deadline: options.Deadline = None,
    response_format: options.ResponseFormat = None,
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
    """Go on with a prompt, and write the answer as it comes. With pictures, videos or tools it is a question."""
    given = dict(locals())
    gap = {n: require_text(given[n], f"--{n}") for n in ("prefix", "suffix") if given[n] is not None}
    seen, asking = _seen(given), tool_fields(tools, tool_choice)
    chat = chat or bool(seen or asking)
    _check_together(given, gap, seen)
    fields = options.sampling_fields(given)
    text = "" if gap else read_prompt(model, prompt, named=_is_named(context))
    shown = text is None
    if text is None:
        text, fields = SHOWN_PROMPT, {**SHOWN_FIELDS, **fields}
    if chat:
        require_chat(model)
    check_fields(fields)
    began = time.perf_counter()
    with loaded_model(model, options.runtime_options(given)) as loaded:
        load_seconds = time.perf_counter() - began
        handle = loaded.submit(_asked(loaded, seen, text, chat, gap), **gap, **fields, **asking)
        around = (gap.get("prefix", text), gap.get("suffix", "")) if (shown if echo is None else echo) else ("", "")
        if not json:
            write(around[0] + ("\n" if chat and echo else ""))
        first = show_answer(handle.events(), around[1]) if not json and answers in (None, 1) else None
        result = handle.result()
        _write_whole(result, _record(model, loaded, result, load_seconds) if json else None)
    _note(result, _line(result, load_seconds, first) if stats else None)


def _asked(loaded: TextModelPlugin, seen: list[Seen], text: str, chat: bool, gap: dict[str, str]) -> Any:
    """Return what is asked: nothing beside a gap."""
    return None if gap else _question(loaded, seen, text) if chat else text


def _is_named(context: typer.Context) -> bool:
    """Whether the command names a model."""
    return getattr(context.get_parameter_source("model"), "name", "") != "DEFAULT"


def _write_whole(result: Generation, record: dict[str, Any] | None) -> None:
    """Write what was not shown as it came: a record, or several answers."""
    if record is not None:
        write_json(record)
    elif result.samples:
        write("".join(f"--- {i + 1}\n{_shown(sample)}\n" for i, sample in enumerate(result.samples)))


def _seen(given: dict[str, Any]) -> list[Seen]:
    """Return the pictures and videos among the options, in the order in which the model sees them."""
    if given["fps"] is not None and not given["video"]:
        raise ConfigError("--fps is for --video; leave it out, or give a video")
    pictures = [find_picture(path) for path in given["image"] or ()]
    return [*pictures, *(find_video(path, given["fps"]) for path in given["video"] or ())]


def _check_together(given: dict[str, Any], gap: dict[str, str], seen: list[Seen]) -> None:
    """Refuse options that contradict each other, and pictures and videos for a model that does not see."""
    if given["logprobs"] is not None and not given["json"]:
        raise ConfigError("--logprobs only shows in JSON; add --json")
    if given["json"] and given["echo"] is not None:
        raise ConfigError("--echo and --no-echo are for text; leave them out with --json")
    if gap and given["tools"]:
        raise ConfigError("--tools is for questions; give it with a prompt, or leave it out")
    if gap and seen:
        raise ConfigError("--image and --video are for questions; give them with a prompt, or leave them out")
    if gap and (given["chat"] or given["prompt"] is not None):
        raise ConfigError("--prefix and --suffix take the place of a prompt; give them without one, and without --chat")
    if given["literal_messages"] and not (given["chat"] or gap or seen or given["tools"]):
        raise ConfigError("--literal-messages is for messages and gaps; add --chat, or leave it out")
    if seen:
        require_sight(given["model"], [one.kind for one in seen], given["plugin"])


def _note(result: Generation, line: str | None) -> None:
    """Say on standard error what is to be known of the answers."""
    for answer in result.samples or (result,):
        note_unfinished(answer)
    if line is not None:
        note(line)


def _question(model: TextModelPlugin, seen: list[Seen], text: str) -> list[dict[str, Any]]:
    """A conversation that asks this, about what is to be seen."""
    parts = [*(one.part(model) for one in seen), {"type": "text", "text": text}]
    return [{"role": "user", "content": parts if seen else text}]


def _shown(sample: Generation) -> str:
    """One of several answers, with its calls below."""
    calls = "".join(map(call_line, sample.tool_calls)).removesuffix("\n")
    return "\n".join(filter(None, (sample.text, calls))) if calls else sample.text


def _record(name: str, model: TextModelPlugin, result: Generation, load_seconds: float) -> dict[str, Any]:
    """The answer as JSON has it."""
    about = {"model": name, "path": model.path, "plugin": model.manifest.name}
    return {**about, **_answer(result), "load_seconds": load_seconds}


def _answer(result: Generation) -> dict[str, Any]:
    """One answer, with its samples where there are several; everything in it has a name."""
    from dataclasses import asdict, replace

    record = asdict(replace(result, samples=(), read_parsed=None, own_message=None))
    del record["samples"], record["read_parsed"], record["own_message"]
    record["parsed"] = result.parsed
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
    counted = {"of pictures": usage.image_tokens, "cached": usage.cached_tokens}
    kinds = ", ".join(f"{tokens} {kind}" for kind, tokens in counted.items() if tokens)
    told = f" ({kinds})" if kinds else ""
    parts = [
        f"{usage.prompt_tokens}{told} + {sum(a.usage.completion_tokens for a in answers)} tokens",
        f"{timings.tokens_per_second:.1f} tok/s",
        f"first token {timings.time_to_first_token:.3f} s after the prompt",
        f"loaded in {load_seconds:.2f} s",
    ]
    if timings.drafted:
        parts.insert(2, f"{timings.accepted} of {timings.drafted} drafted tokens accepted")
    if first is not None:
        parts.insert(-1, f"{first:.2f} s after the start of the process")
    return ", ".join(parts)
