"""One answer in the making: its tokens, its cache blocks and how far it has come."""

from __future__ import annotations

from array import array
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pio.ops.sampling import Sampler
    from pio.tensor import Tensor


class Status(Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Consumer(Protocol):
    """Takes a sequence's logits until it has what was asked for."""

    @property
    def dead(self) -> bool:
        """Whether nobody wants its result any more."""
        ...

    def begin(self) -> None:
        """Note that the model starts on the sequence."""
        ...

    def take(self, sequence: Sequence, logits: Tensor, row: int, sampler: Sampler) -> bool:
        """Use the rows that the step made; return whether the sequence is finished.

        Args:
            sequence: The sequence, ``num_computed`` not yet counting this step.
            logits: float32 (rows, vocabulary), valid during the call.
            row: Its first row among them; it has ``sequence.rows``.
            sampler: Chooses tokens.
        """
        ...

    def fail(self, error: BaseException) -> None:
        """End its request with an error."""
        ...


class Sequence:
    """Prompt and generated tokens of one answer, and the cache blocks that hold them.

    Attributes:
        consumer: What takes its logits: an answer that grows token by token, or the logits of a whole prompt.
        tokens: Prompt, then generated tokens.
        prompt_length: How many of them are the prompt.
        outputs: How many of its last tokens want a row of logits: one for an answer, all for a prompt that is scored.
        num_computed: How many tokens are in the cache.
        blocks: Its block table.
        slot: Where recurrent layers keep its state while it runs.
        scheduled: Tokens of it in the current step.
        rows: Rows of logits of it in the current step.
        row: The first of them, among those of all sequences.
        status: Where it stands.
    """

    __slots__ = (
        "blocks",
        "consumer",
        "num_computed",
        "outputs",
        "prompt_length",
        "row",
        "rows",
        "scheduled",
        "slot",
        "status",
        "tokens",
    )

    def __init__(self, consumer: Consumer, prompt: array[int], outputs: int = 1) -> None:
        self.consumer = consumer
        self.tokens = array("i", prompt)
        self.prompt_length = len(prompt)
        self.outputs = outputs
        self.num_computed = 0
        self.blocks = array("i")
        self.scheduled = self.rows = self.row = 0
        self.slot = 0
        self.status = Status.WAITING

    @property
    def pending(self) -> int:
        """Tokens that the model has not seen yet."""
        return len(self.tokens) - self.num_computed

    @property
    def decodes(self) -> bool:
        """Whether its prompt is behind it and its next step gives the next token of an answer."""
        return self.outputs == 1 and len(self.tokens) - self.num_computed == 1

    def plan(self, count: int) -> None:
        """Take that many tokens into the next step, with a row of logits for each of them that wants one."""
        self.scheduled = count
        behind = len(self.tokens) - self.num_computed - count  # tokens that this step leaves for later ones
        self.rows = max(0, min(count, self.outputs - behind))
