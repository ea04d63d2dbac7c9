"""What calls of a model accept, and what they return where that is less than a whole answer."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, cast

from pio.engine.generation import Generation
from pio.engine.sampling_params import SamplingParams
from pio.errors import ConfigError, PioError, UnfinishedAnswerError
from pio.loading.model_file import shown
from pio.plugin.prompts import Prompt
from pio.text.encoded_prompt import EncodedPrompt
from pio.text.plain_data import is_record

TEXT_ALONE = "a text alone"  # of what returns no more than that


def template_variables(given: Mapping[str, Any] | None, /, **named: Any) -> dict[str, Any]:
    """Return the variables of a chat template, those with names of their own winning; None is none.

    Raises:
        ConfigError: They are no dict, or one would replace the messages.
    """
    found: Any = {} if given is None else given
    if not isinstance(found, Mapping) or "messages" in found:
        raise ConfigError(
            f"template_variables: found {shown(cast('object', found))}, expected a dict of what the chat template "
            'reads besides the messages, such as {"enable_thinking": False}'
        )
    return {**cast("Mapping[str, Any]", found), **{name: value for name, value in named.items() if value is not None}}


def check_text_only(params: SamplingParams, what: str) -> None:
    """Refuse what cannot be seen in the text of one answer.

    Args:
        params: The request's.
        what: What is returned, for messages.

    Raises:
        ConfigError: ``n`` asks for several answers, or ``logprobs`` for log probabilities.
    """
    remedy = "use generate(), whose result has all of it, or submit() and its events()"
    if params.n > 1:
        raise ConfigError(f"{what} has one answer, found n={params.n}; use n=1, or {remedy}")
    if params.logprobs is not None:
        raise ConfigError(
            f"{what} has no log probabilities, found logprobs={params.logprobs}; leave it out, or {remedy}"
        )


def check_no_calls(prompt: EncodedPrompt, what: str) -> None:
    """Refuse tools where their calls would not be seen.

    Args:
        prompt: The request's.
        what: What is returned, for messages.

    Raises:
        ConfigError: The answer may have calls.
    """
    if prompt.calls is not None and what == TEXT_ALONE:
        raise ConfigError(
            f"{what} has no tool calls, found tools; leave them out, or use generate(), whose result has tool_calls"
        )


def check_conversation(messages: object) -> None:
    """Raise unless these are several messages.

    Raises:
        ConfigError: They are text, token ids, one message, or none.
    """
    if (
        not messages
        or not isinstance(messages, (list, tuple))
        or not all(map(is_record, cast("list[object]", messages)))
    ):
        raise ConfigError("messages: expected a list of dicts with role and content; for text use generate_text")


def answer_text(result: Generation) -> str:
    """Return the text of a conversation's answer.

    Raises:
        UnfinishedAnswerError: There is none, because it ended inside the reasoning.
    """
    if result.answered:
        return result.text
    if result.finish_reason == "stop":
        why, remedy = "at an end token", "ask again with another seed"
    elif result.finish_reason == "deadline":
        why, remedy = "where its time was over", "raise deadline and first_token_deadline"
    else:
        why = "where max_new_tokens or the context ended"
        remedy = "raise max_new_tokens or leave it out, or give max_thinking_tokens, which leaves room for an answer"
    if not result.token_ids:
        raise UnfinishedAnswerError(f"the answer ended before its first token, {why}; {remedy}", result)
    raise UnfinishedAnswerError(
        f"the answer ended inside the model's reasoning, after {len(result.token_ids)} tokens, {why}; {remedy}, or "
        "give enable_thinking=False where the chat template reads it; generate() returns the reasoning, and so does "
        "this error's generation",
        result,
    )


def check_prompts(prompts: object) -> Iterable[Prompt]:
    """Return several prompts as they are.

    Raises:
        ConfigError: They are one prompt, or none at all.
    """
    if isinstance(prompts, (str, bytes, bytearray, Mapping)) or not isinstance(prompts, Iterable):
        raise ConfigError(
            f"infer_batch: found {shown(cast('object', prompts))}, expected a list of prompts; give one prompt in a "
            "list of its own, or to generate"
        )
    return cast("Iterable[Prompt]", prompts)


@contextmanager
def prompt_named(index: int) -> Generator[None]:
    """Have an error say which of several prompts it is about."""
    try:
        yield
    except PioError as error:
        error.add_note(f"This is about prompt {index} of infer_batch.")
        raise
