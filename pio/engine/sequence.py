"""One answer in the making: its tokens, its cache blocks and how far it has come."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from pio.engine.block_keys import BlockKeys
from pio.text.encoded_prompt import PromptEmbeddings

if TYPE_CHECKING:
    from pio.engine.generation import Speculated
    from pio.engine.request import Request
    from pio.engine.state_points import Point
    from pio.ops.sampling import Choice
    from pio.tensor import Tensor
    from pio.text.encoded_prompt import PlacedMedium, PromptPositions


NO_SLOT: Final = -1  # of a sequence that does not run
NO_DRAFT: Final = array("i")


class Status(Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Consumer(Protocol):
    """Takes a sequence's logits until it has what was asked for."""

    @property
    def request(self) -> Request[Any]:
        """Who asked for it."""
        ...

    @property
    def index(self) -> int:
        """Which of the request's answers it is."""
        ...

    @property
    def dead(self) -> bool:
        """Whether nobody wants its result any more."""
        ...

    @property
    def expires(self) -> float:
        """When its time is over, by ``time.perf_counter``; infinite where it has no deadline."""
        ...

    @property
    def seconds(self) -> float:
        """How long it was given until then, from the request on."""
        ...

    def expire(self, sequence: Sequence) -> None:
        """End it with what there is."""
        ...

    def room(self, sequence: Sequence) -> int:
        """Return how many more tokens it takes."""
        ...

    def begin(self) -> None:
        """Note that the model starts on it, or that its beginning is read from disk; only the first time counts."""
        ...

    def choose(self, sequence: Sequence, row: int) -> Choice | None:
        """Return how the token behind a row of logits is to be chosen; None where the logits themselves are wanted."""
        ...

    def choose_again(self, sequence: Sequence, row: int) -> Choice | None:
        """Return how another token is to be chosen in place of the one that was; None where that one is taken."""
        ...

    def take(self, sequence: Sequence, logits: Tensor, row: int) -> bool:
        """Use what the step made, the token that was chosen or the logits; return whether the sequence is finished.

        Args:
            sequence: The sequence, ``num_computed`` not yet counting this step.
            logits: float32 (rows, vocabulary), valid during the call.
            row: That of the token; where the logits themselves are wanted, the first of ``sequence.rows``.
        """
        ...

    def finish(self) -> None:
        """Hand the result over, if there is one, now that the sequence holds nothing any more."""
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
        media: Pictures and videos of the prompt that are not encoded; ``embeddings`` gains the rows of others.
        image_tokens: Tokens of the prompt that stand for any.
        missing: How many of them it waits for, and cannot run until all are encoded; others are in the cache already.
        positions: Of its tokens for rotary embedding, where they are not their numbers.
        family: The same object for answers to one prompt, so that it is computed once; None for a sequence alone.
        keys: What its full blocks are known by.
        loading: Whether blocks that it begins with are read from disk. Meanwhile it cannot run.
        reused: Tokens that were in the cache already when it began, or began again.
        cached_tokens: The same of the first time; below zero until then.
        blocks: Its block table.
        slot: Where recurrent layers keep its state while it runs.
        points: Where states of it are going to be kept, as far as it has not come there.
        cuts: Where the current step keeps some: a length; before the step the slot that the sequence goes on in from
            there, behind it the one in which the states stay; and whether ways are likely to part there.
        rolling: Key of those behind the last whole block of its answer; empty where none are kept.
        rolled: How long it was then.
        turns: Where messages of its prompt end, in tokens.
        awaited: Who computes what it begins with, and has been told to keep states where the two part.
        scheduled: Tokens of it in the current step.
        rows: Rows of logits of it in the current step.
        row: The first of them, among those of all sequences.
        choice: How the token of that row is chosen, where that is known before the step; behind it None.
        draft: Tokens behind the last one that the current step computes too, for they are likely to come.
        confirmed: Whether the last token came as the draft has it.
        drafted: Tokens of drafts so far.
        accepted: Those of them that came.
        checks: Steps with a draft so far.
        speculation: What became of it: see ``Timings``.
        salt: Of the caller; sequences with another one learn nothing of its text.
        status: Where it stands.
        priority: Each step of it counts as ``waiting_line.HEAD_START`` seconds that it came earlier.
        order: Less than that of whoever comes behind it; the line gives it.
    """

    __slots__ = (
        "accepted",
        "awaited",
        "blocks",
        "cached_tokens",
        "checks",
        "choice",
        "confirmed",
        "consumer",
        "cuts",
        "draft",
        "drafted",
        "embeddings",
        "family",
        "image_tokens",
        "keys",
        "loading",
        "media",
        "missing",
        "num_computed",
        "order",
        "outputs",
        "points",
        "positions",
        "priority",
        "prompt_length",
        "reused",
        "rolled",
        "rolling",
        "row",
        "rows",
        "salt",
        "scheduled",
        "slot",
        "speculation",
        "status",
        "tokens",
        "turns",
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
        priority: int = 0,
        salt: str | None = None,
        turns: tuple[int, ...] = (),
    ) -> None:
        self.consumer = consumer
        self.priority, self.order = priority, 0.0
        self.family = family
        self.embeddings = tuple(embeddings)
        self.media = tuple(media)
        self.missing = 0
        self.image_tokens = sum(placed.tokens for placed in self.media)
        self.positions = positions
        self.tokens = array("i", prompt)
        self.prompt_length = len(prompt)
        self.outputs = outputs
        self.num_computed = self.reused = 0
        self.cached_tokens = -1
        self.loading = False
        self.keys = BlockKeys(salt, self.media, self.embeddings, positions)
        self.salt = salt
        self.blocks = array("i")
        self.scheduled = self.rows = self.row = 0
        self.choice: Choice | None = None
        self.draft = NO_DRAFT
        self.confirmed = False
        self.drafted = self.accepted = self.checks = 0
        self.speculation: Speculated = "off"
        self.slot = NO_SLOT
        self.points: list[Point] = []
        self.cuts: list[tuple[int, int, bool]] = []
        self.rolling, self.rolled = b"", 0
        self.turns = turns
        self.awaited: Sequence | None = None
        self.status = Status.WAITING

    @property
    def pending(self) -> int:
        """Tokens that the model has not seen yet."""
        return len(self.tokens) - self.num_computed

    def scheduled_embeddings(self) -> Iterator[PromptEmbeddings]:
        """Yield the rows that the current step takes; where they begin is counted in the sequence's slice."""
        begin, end = self.num_computed, self.num_computed + self.scheduled
        for given in self.embeddings:
            first, last = max(begin, given.first), min(end, given.first + given.rows.shape[0])
            if first < last:
                cut = slice(first - given.first, last - given.first)
                yield PromptEmbeddings(first - begin, given.rows[cut], tuple(level[cut] for level in given.additions))

    @property
    def decodes(self) -> bool:
        """Whether its prompt is behind it and its next step gives the next token of an answer."""
        return self.outputs == 1 and self.pending == 1

    def awaits(self, other: Sequence) -> bool:
        """Whether another sequence is about to compute the prompt of this one, which is all that both have so far."""
        return (
            self.family is not None
            and self.family is other.family
            and len(other.tokens) == other.prompt_length
            and len(self.tokens) == self.prompt_length
        )

    def append(self, token: int) -> None:
        """Take the answer's next token; ``num_computed`` does not count this step yet."""
        if self.draft:
            at = self.pending - 1  # tokens that the step has given
            self.confirmed = at < len(self.draft) and self.draft[at] == token
            self.accepted += self.confirmed
        self.tokens.append(token)

    def plan_draft(self, draft: array[int]) -> None:
        """Take uncertain tokens into the next step, behind the one that is certain, with a row of logits for each."""
        self.draft, self.confirmed = draft, False
        self.scheduled = self.rows = 1 + len(draft)
        self.drafted += len(draft)
        self.checks += 1

    def drop_draft(self) -> None:
        """Have no draft any more, for the step is done."""
        self.draft = NO_DRAFT

    def plan(self, count: int) -> None:
        """Take that many tokens into the next step, with a row of logits for each of them that wants one."""
        self.scheduled = count
        behind = len(self.tokens) - self.num_computed - count  # tokens that this step leaves for later ones
        self.rows = max(0, min(count, self.outputs - behind))
