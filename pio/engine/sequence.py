"""One answer in the making: its tokens, its cache blocks and how far it has come."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from pio.text.encoded_prompt import PromptEmbeddings

if TYPE_CHECKING:
    from pio.ops.sampling import Choice
    from pio.tensor import Tensor
    from pio.text.encoded_prompt import PlacedMedium, PromptPositions


NO_SLOT: Final = -1  # of a sequence that does not run


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

    def choose(self, sequence: Sequence, row: int) -> Choice | None:
        """Return how the token behind a row of logits is to be chosen; None where the logits themselves are wanted."""
        ...

    def take(self, sequence: Sequence, logits: Tensor, row: int) -> bool:
        """Use what the step made, the token that was chosen or the logits; return whether the sequence is finished.

        Args:
            sequence: The sequence, ``num_computed`` not yet counting this step.
            logits: float32 (rows, vocabulary), valid during the call.
            row: Its first row among them; it has ``sequence.rows``.
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
        embeddings: Rows that take the place of those which the model has for some tokens of the prompt.
        media: Pictures and videos of the prompt, until all are encoded; ``embeddings`` gains their rows.
        image_tokens: Tokens of the prompt that stand for them.
        missing: How many of them are not encoded yet. Until all are it cannot run.
        positions: Of its tokens for rotary embedding, where they are not their numbers.
        family: The same object for answers to one prompt, so that it is computed once; None for a sequence alone.
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
        "embeddings",
        "family",
        "image_tokens",
        "media",
        "missing",
        "num_computed",
        "outputs",
        "positions",
        "prompt_length",
        "row",
        "rows",
        "scheduled",
        "slot",
        "status",
        "tokens",
    )

    def __init__(
        self,
        consumer: Consumer,
        prompt: array[int],
        outputs: int = 1,
        family: object | None = None,
        embeddings: Iterable[PromptEmbeddings] = (),
        media: Iterable[PlacedMedium] = (),
        positions: PromptPositions | None = None,
    ) -> None:
        self.consumer = consumer
        self.family = family
        self.embeddings = tuple(embeddings)
        self.media = tuple(media)
        self.missing = 0
        self.image_tokens = sum(placed.tokens for placed in self.media)
        self.positions = positions
        self.tokens = array("i", prompt)
        self.prompt_length = len(prompt)
        self.outputs = outputs
        self.num_computed = 0
        self.blocks = array("i")
        self.scheduled = self.rows = self.row = 0
        self.slot = NO_SLOT
        self.status = Status.WAITING

    @property
    def pending(self) -> int:
        """Tokens that the model has not seen yet."""
        return len(self.tokens) - self.num_computed

    def scheduled_embeddings(self) -> Iterator[PromptEmbeddings]:
        """Yield the rows that the current step takes, each stretch with where it begins in the sequence's slice."""
        begin, end = self.num_computed, self.num_computed + self.scheduled
        for given in self.embeddings:
            first, last = max(begin, given.first), min(end, given.first + given.rows.shape[0])
            if first < last:
                cut = slice(first - given.first, last - given.first)
                yield PromptEmbeddings(first - begin, given.rows[cut], tuple(level[cut] for level in given.additions))

    @property
    def decodes(self) -> bool:
        """Whether its prompt is behind it and its next step gives the next token of an answer."""
        return self.outputs == 1 and len(self.tokens) - self.num_computed == 1

    def awaits(self, other: Sequence) -> bool:
        """Whether another sequence is about to compute the prompt of this one, which is all that both have so far."""
        return (
            self.family is not None
            and self.family is other.family
            and len(other.tokens) == other.prompt_length
            and len(self.tokens) == self.prompt_length
        )

    def plan(self, count: int) -> None:
        """Take that many tokens into the next step, with a row of logits for each of them that wants one."""
        self.scheduled = count
        behind = len(self.tokens) - self.num_computed - count  # tokens that this step leaves for later ones
        self.rows = max(0, min(count, self.outputs - behind))
