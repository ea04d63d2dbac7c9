"""How a model's own template ends reasoning, for answers whose reasoning is to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pio.errors import CheckpointError, ConfigError
from pio.text.reasoning import CLOSE

if TYPE_CHECKING:
    from pio.text.chat_template import ChatTemplate

_ASKED, _THOUGHT, _ANSWER = "5f3e27c1 asks", "5f3e27c1 thinks", "5f3e27c1 answers"
# A conversation with an answer that was thought about, and one whose answer is to come without a thought.
_PROBES: Final[tuple[tuple[str, list[dict[str, Any]], dict[str, Any]], ...]] = (
    (
        "reasoning_content",
        [
            {"role": "user", "content": _ASKED},
            {"role": "assistant", "content": _ANSWER, "reasoning_content": _THOUGHT},
        ],
        {"add_generation_prompt": False},
    ),
    ("enable_thinking", [{"role": "user", "content": _ASKED}], {"enable_thinking": False}),
)


def closing_text(template: ChatTemplate) -> str:
    """Return the tag that ends reasoning, and the line ends that a template writes behind it.

    Args:
        template: Of a model that thinks.
    """
    for name, messages, variables in _PROBES:
        if not any(name in source for source in template.sources.values()):
            continue  # a template says so of what it does not read
        try:
            written = template.render(messages, **variables)
        except (ConfigError, CheckpointError):
            continue
        _, tag, behind = written.rpartition(CLOSE)
        if tag:
            return CLOSE + behind[: len(behind) - len(behind.lstrip("\n"))]
    return CLOSE
