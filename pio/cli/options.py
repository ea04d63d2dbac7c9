"""Options that commands share: what to load, how to run it, how to choose tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import typer

from pio.cli.console import say_more
from pio.cli.response_format import read_response_format
from pio.errors import ConfigError

_MODEL, _SAMPLING = "Model", "Sampling"


def _runtime(*names: str, **options: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_MODEL, show_default=False, **options)


def _sampling(*names: str, **options: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_SAMPLING, show_default=False, **options)


Model: TypeAlias = Annotated[
    str, typer.Argument(help="A model folder, a repo id in the local Hugging Face cache, or demo.")
]
Prefix: TypeAlias = Annotated[
    str | None, typer.Option("--prefix", help="Text before a gap, which models for code fill.", show_default=False)
]
Suffix: TypeAlias = Annotated[
    str | None,
    typer.Option("--suffix", help="Text behind the gap; both are given without a prompt.", show_default=False),
]
Echo: TypeAlias = Annotated[
    bool | None,
    typer.Option("--echo/--no-echo", help="Write the prompt, or what stands around the gap, too; the built-in one is."),
]
Image: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="PATH", help="A picture to ask about; may be repeated.", show_default=False),
]
ImageSize: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="WxH", help="Look at a picture of this size, such as 1024x1024; may be repeated."),
]
Copy: TypeAlias = Annotated[
    int,
    typer.Option(
        "--copy",
        min=0,
        metavar="TOKENS",
        help="Make an answer of --new-tokens (1024) also as a copy with an edit every so many tokens (0).",
    ),
]
Video: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--video", metavar="PATH", help="A video to ask about, or a folder of its pictures; may be repeated."),
]
Fps: TypeAlias = Annotated[
    float | None, typer.Option("--fps", help="How many pictures of a folder a second has.", show_default=False)
]
Tools: TypeAlias = Annotated[
    str | None,
    typer.Option("--tools", metavar="FILE", help="A JSON file of tools that it may call.", show_default=False),
]
ToolChoice: TypeAlias = Annotated[
    str | None,
    typer.Option("--tool-choice", help="auto, none, required, or the name of one.", show_default=False),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Write JSON instead.")]

Plugin: TypeAlias = Annotated[str | None, _runtime("--plugin", help="Run it with this plugin.")]
Profile: TypeAlias = Annotated[
    str | None, _runtime("--profile", help="balanced, performance, memory_efficient or accuracy.")
]
Device: TypeAlias = Annotated[
    str | None, _runtime("--device", help="cpu, cuda or cuda:1; auto takes a GPU that has room, else the CPU.")
]
CudaKernels: TypeAlias = Annotated[
    str | None,
    _runtime(
        "--cuda-kernels",
        metavar="all|none|NAMES",
        help="Which kernels run on a GPU, such as -norm,-rope: all but these; others run on the CPU over copies.",
    ),
]
GpuMemory: TypeAlias = Annotated[
    str | None,
    _runtime(
        "--gpu-memory",
        metavar="SIZE",
        help="What weights, cache and activations may take on a GPU, such as 10GiB; other layers stay here.",
    ),
]
OffloadedExperts: TypeAlias = Annotated[
    str | None,
    _runtime(
        "--offloaded-experts",
        help="Experts that do not fit on a GPU: copy, compute (by the CPU), or auto, which measures.",
    ),
]
Threads: TypeAlias = Annotated[int | None, _runtime("--threads", help="Over how many threads to split.")]
ContextLength: TypeAlias = Annotated[
    int | None, _runtime("--context-length", help="Tokens of prompt and answer together.")
]
Dtype: TypeAlias = Annotated[str | None, _runtime("--dtype", help="Convert the weights: float32, float16 or bfloat16.")]
Quantize: TypeAlias = Annotated[
    str | None, _runtime("--quantize", help="Quantize the weights: int8, int4 or int4_zero_point.")
]
QuantizePolicy: TypeAlias = Annotated[
    str | None,
    _runtime("--quantize-policy", help="balanced keeps embedding and output head in int8; uniform does not."),
]
ActivationDtype: TypeAlias = Annotated[
    str | None,
    _runtime("--activation-dtype", help="Round inputs of layers with bfloat16 weights: float32 (not) or bfloat16."),
]
MemoryLimit: TypeAlias = Annotated[
    str | None,
    _runtime("--memory-limit", metavar="SIZE", help="What weights, cache and buffers may take together, such as 4GB."),
]
LiteralMessages: TypeAlias = Annotated[
    bool | None,
    _runtime("--literal-messages", help="Control tokens written in messages and gaps stay text."),
]
MaxPixels: TypeAlias = Annotated[
    int | None, _runtime("--max-pixels", min=1, help="Make larger pictures smaller: width x height.")
]
AllowRemote: TypeAlias = Annotated[
    list[str] | None,
    _runtime("--allow-remote", metavar="URL", help="Fetch pictures from addresses that begin so; may be repeated."),
]
Speculation: TypeAlias = Annotated[
    str | None,
    _runtime("--speculation", help="auto computes likely tokens together, where that is faster; off does not."),
]
MaxDraftTokens: TypeAlias = Annotated[
    int | None, _runtime("--max-draft-tokens", help="How many of them at once, at most.")
]
Mmap: TypeAlias = Annotated[
    bool | None,
    _runtime("--mmap/--no-mmap", help="Map the weights, or read them into memory: from files that may change."),
]
PrefixCache: TypeAlias = Annotated[
    str | None,
    _runtime(
        "--prefix-cache",
        metavar="SIZE|on|off",
        help="off computes every prompt from its first token; of recurrent layers, how much is kept, such as 4GiB.",
    ),
]
PrefixCachePath: TypeAlias = Annotated[
    str | None,
    _runtime("--prefix-cache-path", metavar="FOLDER", help="Keep there what was computed of prompts, for later."),
]
PrefixCacheDisk: TypeAlias = Annotated[
    str | None, _runtime("--prefix-cache-disk", metavar="SIZE", help="What that folder may take, such as 20GB.")
]
Progress: TypeAlias = Annotated[
    bool | None, _runtime("--progress/--no-progress", help="Show progress; by default on a terminal, after a second.")
]

Verbose: TypeAlias = Annotated[bool, _runtime("--verbose", help="Say what is loaded and compiled.", callback=say_more)]

MaxNewTokens: TypeAlias = Annotated[
    int | None, _sampling("--max-new-tokens", "-n", help="End the answer after this many tokens.")
]
MaxThinkingTokens: TypeAlias = Annotated[
    int | None,
    _sampling("--max-thinking-tokens", help="After so many tokens of reasoning it is closed, and the answer begins."),
]
MinNewTokens: TypeAlias = Annotated[
    int | None, _sampling("--min-new-tokens", help="No end token comes before the answer has this many tokens.")
]
Temperature: TypeAlias = Annotated[
    float | None, _sampling("--temperature", "-t", help="0 always takes the likeliest token.")
]
TopK: TypeAlias = Annotated[int | None, _sampling("--top-k", help="Draw among the k likeliest tokens; 0 for all.")]
TopP: TypeAlias = Annotated[
    float | None, _sampling("--top-p", help="Draw among the likeliest tokens that together reach this probability.")
]
MinP: TypeAlias = Annotated[
    float | None, _sampling("--min-p", help="Draw among tokens at least this fraction as likely as the likeliest.")
]
RepetitionPenalty: TypeAlias = Annotated[
    float | None, _sampling("--repetition-penalty", help="Above 1 makes tokens that were there less likely.")
]
PresencePenalty: TypeAlias = Annotated[
    float | None, _sampling("--presence-penalty", help="Taken from the logit of every token the answer has.")
]
FrequencyPenalty: TypeAlias = Annotated[
    float | None, _sampling("--frequency-penalty", help="The same, for each time the answer has it.")
]
NoRepeatNgramSize: TypeAlias = Annotated[
    int | None,
    _sampling("--no-repeat-ngram-size", help="No run of so many tokens comes twice in prompt and answer."),
]
LogitBias: TypeAlias = Annotated[
    list[str] | None, _sampling("--logit-bias", metavar="ID=BIAS", help="Added to a token's logit; may be repeated.")
]
Seed: TypeAlias = Annotated[int | None, _sampling("--seed", help="The same seed gives the same answer.")]
Stop: TypeAlias = Annotated[list[str] | None, _sampling("--stop", help="A text that ends the answer; may be repeated.")]
StopTokenIds: TypeAlias = Annotated[
    list[int] | None, _sampling("--stop-token-id", help="A token that ends the answer; may be repeated.")
]
IgnoreEos: TypeAlias = Annotated[bool, _sampling("--ignore-eos", help="Go on after the model's own end tokens.")]
IncludeStop: TypeAlias = Annotated[bool, _sampling("--include-stop", help="Keep the text that ended the answer.")]
SpecialTokens: TypeAlias = Annotated[bool, _sampling("--special-tokens", help="Keep special tokens in the text.")]
Logprobs: TypeAlias = Annotated[
    int | None, _sampling("--logprobs", help="Log probabilities of this many alternatives a token; with --json.")
]
ResponseFormat: TypeAlias = Annotated[
    str | None,
    _sampling(
        "--response-format",
        metavar="FILE|regex:…|json",
        help="The shape of the answer: a file with a JSON schema or a list of choices, an expression, or json.",
    ),
]
Answers: TypeAlias = Annotated[int | None, _sampling("--answers", help="How many answers to draw.")]
Deadline: TypeAlias = Annotated[
    float | None, _sampling("--deadline", metavar="SECONDS", help="The answer ends then, with what there is.")
]

_RUNTIME_FIELDS = (
    "plugin",
    "profile",
    "device",
    "cuda_kernels",
    "gpu_memory",
    "offloaded_experts",
    "threads",
    "context_length",
    "dtype",
    "quantize",
    "quantize_policy",
    "activation_dtype",
    "memory_limit",
    "literal_messages",
    "max_pixels",
    "allow_remote",
    "speculation",
    "max_draft_tokens",
    "mmap",
    "prefix_cache",
    "prefix_cache_path",
    "prefix_cache_disk",
    "progress",
)
_SAMPLING_FIELDS = (
    "max_new_tokens",
    "max_thinking_tokens",
    "min_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram_size",
    "seed",
    "stop",
    "stop_token_ids",
    "logprobs",
    "deadline",
)


def runtime_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``pio.load`` among a command's options, without those that were not given."""
    return {name: given[name] for name in _RUNTIME_FIELDS if given.get(name) not in (None, [])}


def sampling_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling fields among a command's options, without those that were not given.

    Raises:
        ConfigError: A bias does not have the form ID=BIAS, or a response format cannot be read.
    """
    fields = {name: given[name] for name in _SAMPLING_FIELDS if given.get(name) not in (None, [])}
    fields.update({name: True for name in ("ignore_eos", "include_stop") if given.get(name)})
    if given.get("special_tokens"):
        fields["skip_special_tokens"] = False
    if given.get("answers") is not None:
        fields["n"] = given["answers"]
    if given.get("response_format") is not None:
        fields["response_format"] = read_response_format(given["response_format"])
    if given.get("logit_bias"):
        fields["logit_bias"] = dict(map(_bias, given["logit_bias"]))
    return fields


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise ConfigError(f"--logit-bias is {text!r}, expected ID=BIAS, such as 42=-100") from None
