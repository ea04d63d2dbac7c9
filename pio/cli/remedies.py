"""Errors that name arguments of Python, in the words of the command line."""

from __future__ import annotations

import re

# Arguments that are options of commands by the same name.
NAMES = (
    "activation_dtype",
    "context_length",
    "dtype",
    "frequency_penalty",
    "literal_messages",
    "logit_bias",
    "logprobs",
    "max_new_tokens",
    "memory_limit",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "plugin",
    "presence_penalty",
    "profile",
    "quantize",
    "quantize_policy",
    "repetition_penalty",
    "seed",
    "stop",
    "temperature",
    "threads",
    "top_k",
    "top_p",
)
_GIVEN = re.compile(rf"(?<![\w./=-])({'|'.join(NAMES)})=('[^']*'|[^\s,;:()]+)")
_WRONG = re.compile(rf"^({'|'.join(NAMES)})(?= is ')")
_NAMED = re.compile(rf"(?<![\w./=-])({'|'.join(name for name in NAMES if '_' in name)})(?![\w./=(])")
_DOWNLOAD = ", or pass download=True"


def as_options(message: str) -> str:
    """Return a message with arguments such as ``memory_limit=5`` and ``memory_limit`` as options."""
    message = _GIVEN.sub(lambda found: f"{_option(found[1])} {found[2]}", message.replace(_DOWNLOAD, ""))
    message = _WRONG.sub(lambda found: _option(found[1]), message)
    return _NAMED.sub(lambda found: _option(found[1]), message)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
