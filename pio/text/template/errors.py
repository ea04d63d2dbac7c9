"""What is said when a chat template cannot render a conversation."""

from __future__ import annotations

import jinja2
from jinja2.exceptions import SecurityError

from pio.errors import CheckpointError, ConfigError, PioError
from pio.text.template.budget import BudgetSpent, TemplateLimit
from pio.text.template.call import Unavailable
from pio.text.template.globals import RefusedError
from pio.text.template.inputs import YOURSELF


def explained(error: Exception, where: str, messages: int) -> PioError:
    """Return the typed error for one that a template raised.

    Args:
        error: Anything.
        where: The model, for the message.
        messages: How many the conversation has.
    """
    text = str(error)[:500].rstrip(".")
    the_template = f"the chat template of {where}"
    if isinstance(error, PioError):
        return error
    if isinstance(error, RefusedError):
        return ConfigError(f"{the_template} refuses this conversation: {text}; change the messages accordingly")
    if isinstance(error, BudgetSpent):
        return CheckpointError(
            f"{the_template} was stopped: {text} for {messages} messages; give fewer or shorter messages, or "
            f"{YOURSELF}; where it does so for short conversations too, the template is broken"
        )
    if isinstance(error, (TemplateLimit, RecursionError, MemoryError, OverflowError)):
        reason = text if isinstance(error, TemplateLimit) else f"{type(error).__name__} {text}".rstrip()
        return CheckpointError(f"{the_template} was stopped: {reason}, which no chat needs; {YOURSELF}")
    if isinstance(error, SecurityError):
        return CheckpointError(f"{the_template} reaches for Python internals: {text}; do not trust this folder")
    if isinstance(error, (Unavailable, jinja2.TemplateAssertionError)) or text.startswith(("No filter", "No test")):
        return CheckpointError(f"{the_template} cannot be used: {text}; {YOURSELF}")
    return ConfigError(
        f"{the_template} cannot render this conversation ({type(error).__name__}: {text}); "
        f"check the roles, contents, tools and variables that it was given, or {YOURSELF}"
    )
