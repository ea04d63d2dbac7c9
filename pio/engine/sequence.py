"""One answer in the making: its tokens, its cache blocks and how far it has come."""

from __future__ import annotations

from array import array
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pio.engine.consumer import Consumer


class Status(Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Sequence:
    """Prompt and generated tokens of one answer, and the cache blocks that hold them.

    Attributes:
        consumer: What takes its logits: an answer that grows token by token, or the logits of a whole prompt.
        tokens: Prompt, then generated tokens.
        prompt_length: How many of them are the prompt.
        num_computed: How many of them are in the cache.
        blocks: Its block table.
        slot: Where recurrent layers keep its state while it runs.
        scheduled: Tokens of it in the current step.
        status: Where it stands.
    """

    __slots__ = (
        "blocks",
        "consumer",
        "num_computed",
        "prompt_length",
        "scheduled",
        "slot",
        "status",
        "tokens",
    )

    def __init__(self, consumer: Consumer, prompt: array[int]) -> None:
        self.consumer = consumer
        self.tokens = array("i", prompt)
        self.prompt_length = len(prompt)
        self.num_computed = 0
        self.blocks = array("i")
        self.scheduled = 0
        self.slot = 0
        self.status = Status.WAITING

    @property
    def pending(self) -> int:
        """Tokens that the model has not seen yet."""
        return len(self.tokens) - self.num_computed

    @property
    def scores_prompt(self) -> bool:
        """Whether the logits of all its positions are wanted, not of the last one only."""
        return self.consumer.scores_prompt
