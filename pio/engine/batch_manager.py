"""Runs requests from any thread on one model, as many at once as fit, by arrival and priority."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from math import prod
from time import perf_counter
from typing import Any, TypeVar

from pio.cache.protocol import Cache
from pio.dtypes import float32
from pio.engine import prompt_embeddings, prompt_media
from pio.engine.answer import MakeMessage
from pio.engine.answer_maker import AnswerMaker, MakeDetokenizer
from pio.engine.cache_manager import CacheManager
from pio.engine.consumer import PromptLogits
from pio.engine.drafts.speculation import DRAFTS, Speculation
from pio.engine.generation import Generation
from pio.engine.handle import Handle, LogitsHandle
from pio.engine.limits import Limits
from pio.engine.media_encoder import MediaEncoder
from pio.engine.request import Owned, Request
from pio.engine.runner import Model, Runner
from pio.engine.sampling_params import SamplingParams
from pio.engine.scheduler import Scheduler
from pio.engine.sequence import Sequence as TokenSequence
from pio.engine.stats import Stats
from pio.engine.stored_prefixes import DiskOptions, StoredPrefixes
from pio.engine.thinking_limit import ThinkingLimits
from pio.engine.worker import Worker
from pio.errors import CancelledError, ConfigError, PioError
from pio.memory.arena import Arena
from pio.memory.budget import MemoryBudget
from pio.memory.fit import require_free
from pio.structured.grammars import Grammars
from pio.tensor import Tensor
from pio.text.encoded_prompt import EncodedPrompt, PromptEmbeddings

T = TypeVar("T")
STEP_WAIT = 10.0  # seconds that closing, or a leaving interpreter, waits for a step to end


class BatchManager:
    """The one owner of a model and its cache while requests run.

    A thread of its own does the work; it starts with the first request and ends with ``close``, with the last
    reference to the manager, or with the interpreter. All methods may be called from any thread, in signal handlers
    and in finalisers: no lock is held or waited for.

    Attributes:
        nbytes: Bytes of what sampling needs, of what is being written to disk, and of texts that drafts are found in.
        speculation: Has steps compute tokens that are likely to come; None where nothing is drafted.
    """

    def __init__(
        self,
        model: Model,
        cache: Cache,
        *,
        eos_token_ids: Iterable[int] = (),
        detokenizer: MakeDetokenizer | None = None,
        token_text: Callable[[int], str] | None = None,
        token_bytes: Callable[[int], bytes] | None = None,
        message: MakeMessage | None = None,
        max_batch_tokens: int | None = None,
        max_batch_sequences: int | None = None,
        prefill_chunk: int | None = None,
        check_weights: Callable[[], object] | None = None,
        budget: MemoryBudget | None = None,
        media_cache: int = 0,
        never: Iterable[int] = (),
        prefix_cache: bool = True,
        grammars: Grammars | None = None,
        close_thinking: Callable[[], tuple[int, ...]] | None = None,
        disk: DiskOptions | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        """Make a manager; nothing runs yet.

        Args:
            model: What computes logits.
            cache: Made by the model; its blocks are all handed out from here. It may be freed once ``close`` says so.
            eos_token_ids: Tokens that end an answer unless the request ignores them.
            detokenizer: How to make text; without it texts are empty, and stop texts are refused.
            token_text: Text of one token alone, for log probabilities.
            token_bytes: Its bytes.
            message: Makes the message that an answer is in its conversation; without it messages have no tokens.
            max_batch_tokens: Tokens of a step, at most the model's.
            max_batch_sequences: Answers that run at once, at most the model's.
            prefill_chunk: Prompt tokens of a step; a smaller one lets running answers go on sooner.
            check_weights: Called by those who wait where the model computed no numbers: raises an error that says why.
            budget: Counts what sampling needs, the logits of prompts, and what pictures take.
            media_cache: Bytes of the embeddings of pictures that are kept.
            never: Tokens that no answer holds, such as those that stand for pictures.
            prefix_cache: Whether beginnings of prompts that were computed before are found again.
            grammars: Compiles response formats; without it they are refused.
            close_thinking: Tokens that end reasoning, asked for once; without it reasoning cannot be limited.
            disk: Where beginnings of prompts are kept beyond the end of this process, if they are.
            speculation: Has steps compute tokens that are likely to come; None where nothing is drafted.

        Raises:
            ConfigError: A limit is out of range, or the folder cannot be used.
            OutOfMemoryError: The budget is spent.
        """
        tokens = _limit("max_batch_tokens", max_batch_tokens, model.max_batch_tokens)
        sequences = _limit("max_batch_sequences", max_batch_sequences, min(tokens, model.max_batch_sequences))
        identity = b"" if disk is None else disk.identity
        managed = CacheManager(cache, sequences, prefix_cache=prefix_cache, identity=identity)
        stored = None if disk is None else StoredPrefixes(disk, managed, cache, budget)
        longest = min(model.max_positions, managed.num_tokens)
        self._limits = Limits(model.vocab_size, model.max_positions, longest, detokenizer is not None)
        if speculation is not None and budget is not None:
            budget.reserve(speculation.nbytes, DRAFTS)
        self._hidden_size, self._levels, self._axes = model.hidden_size, model.levels, model.axes
        self._answers = AnswerMaker(
            self._limits,
            ends=frozenset(eos_token_ids),
            never=tuple(never),
            detokenizer=detokenizer,
            token_text=token_text,
            token_bytes=token_bytes,
            message=message,
            grammars=grammars,
            thinking_limits=ThinkingLimits(close_thinking, model.vocab_size) if close_thinking else None,
            turns=managed.states.most > 0,
        )
        self._check_weights = check_weights
        scheduler = Scheduler(
            managed,
            max_tokens=tokens,
            max_outputs=model.max_batch_outputs,
            prefill_chunk=_limit("prefill_chunk", prefill_chunk, tokens),
            stored=stored,
            speculation=speculation,
        )
        runner = Runner(model, cache, max_tokens=tokens, max_sequences=sequences, max_length=longest, budget=budget)
        self._device, tower = runner.device, model.encoder
        self._encoder = None if tower is None else MediaEncoder(tower, media_cache, budget, self._device)
        self.nbytes = runner.nbytes + (0 if stored is None else stored.nbytes)
        self.nbytes += 0 if speculation is None else speculation.nbytes
        self.speculation = speculation
        self._budget = budget
        self._worker: Worker | None = Worker(scheduler, runner, self._encoder)
        self._stop = weakref.finalize(self, _stop, self._worker)

    def stats(self) -> Stats:
        """Count what was done and what runs; raises ``PioError`` where the manager is closed."""
        worker = self._worker
        if worker is None:
            raise PioError("the model is closed; load it again before asking what it does")
        return worker.stats()

    def submit(
        self,
        prompt: EncodedPrompt,
        params: SamplingParams | None = None,
        *,
        owned: Owned | None = None,
    ) -> Handle:
        """Queue a prompt.

        Args:
            prompt: At least one token.
            params: How to choose and when to stop.
            owned: Gets the request before it is queued.

        Raises:
            ConfigError: The prompt is empty, has ids outside the vocabulary or embeddings that do not fit it, or
                ``params`` do not fit the model, or its ``response_format`` cannot be compiled.
            CapacityError: The prompt can never fit into the context or the cache.
            PioError: The manager is closed.
        """
        params = params or SamplingParams()
        ids = self._limits.check_prompt(prompt.token_ids, room=1)
        embeddings = self._checked(prompt, len(ids))
        self._limits.check_params(params)
        request: Request[Generation] = Request(params.n)
        sequences = self._answers.make(request, prompt, params, ids, embeddings)
        return self._queued(request, sequences, owned, lambda: Handle(request, self, params.n))

    def submit_logits(self, prompt: EncodedPrompt, *, owned: Owned | None = None) -> LogitsHandle:
        """Queue a prompt for the logits of all its positions, float32 (tokens, vocabulary).

        Args:
            prompt: At least one token.
            owned: Gets the request before it is queued.

        Raises:
            ConfigError: The prompt is empty, has ids outside the vocabulary or embeddings that do not fit it.
            CapacityError: The prompt can never fit into the context or the cache.
            OutOfMemoryError: The logits need more memory than the budget or the machine has left.
            PioError: The manager is closed.
        """
        ids = self._limits.check_prompt(prompt.token_ids, room=0)
        embeddings = self._checked(prompt, len(ids))
        request: Request[Tensor] = Request()
        consumer = PromptLogits(request, self._prompt_logits(len(ids)))
        sequences = [TokenSequence(consumer, ids, len(ids), None, embeddings, prompt.media, prompt.positions)]
        return self._queued(request, sequences, owned, lambda: LogitsHandle(request, self))

    def logits(self, prompt: EncodedPrompt) -> Tensor:
        """Wait for what ``submit_logits`` queues."""
        return self.submit_logits(prompt).result()

    def explain_not_finite(self) -> None:
        """Raise an error that says why the model computed no numbers, where ``check_weights`` finds out."""
        check = self._check_weights
        if check is not None:
            check()

    def check_alive(self) -> None:
        """Raise where a request that is not finished never will be.

        Raises:
            PioError: The manager is closed, its thread is gone or is the one that asks, or this is a forked child.
        """
        worker = self._worker
        if worker is None:
            raise CancelledError("the model was closed before the request finished")
        worker.check()

    def close(self, then: Callable[[], object] = lambda: None) -> None:
        """Cancel everything, end the thread and let go of the model; twice does no harm.

        Waits for the running step, but not for ever: where the thread needs what the caller holds, as it may where
        the caller is a signal handler, it ends after the caller has gone on.

        Args:
            then: Called once no step can run any more, by whoever sees that: this call, or the thread at its end.
        """
        worker, self._check_weights = self._worker, None
        if worker is None:
            then()
            return
        self._stop()
        try:
            worker.join(STEP_WAIT)
        finally:
            worker.at_end(then)
            worker.at_end(self._forget)

    def _forget(self) -> None:
        self._worker = self._encoder = None

    def _checked(self, prompt: EncodedPrompt, tokens: int) -> tuple[PromptEmbeddings, ...]:
        """Return a prompt's embeddings; refuse them, and its pictures, where they do not fit the model."""
        embeddings = prompt_embeddings.checked(prompt.embeddings, tokens, self._hidden_size, self._levels)
        prompt_media.check(prompt, embeddings, tokens, self._axes)
        embeddings = prompt_embeddings.placed(embeddings, self._device, self._budget)
        encoder = self._encoder
        if prompt.media and self._worker is not None:
            if encoder is None:
                raise ConfigError("prompt: it has pictures, and this model reads text alone; leave media out")
            encoder.check(prompt.media)
        return embeddings

    def _queued(
        self, request: Request[Any], sequences: list[TokenSequence], owned: Owned | None, handle: Callable[[], T]
    ) -> T:
        """Queue a request and return its handle; an exception, wherever it comes from, leaves none behind."""
        worker = self._worker
        if worker is None:
            raise PioError("the model is closed; load it again before the next request")
        try:
            if owned is not None:
                owned.add(request)
            request.on_death = partial(worker.drop, sequences)
            request.queued = perf_counter()  # its format is compiled, and its pictures are read
            worker.put(sequences)
            return handle()
        except BaseException:
            request.cancel()
            raise

    def _prompt_logits(self, tokens: int) -> Tensor:
        """Memory for the logits of a prompt, counted until the caller lets go of it."""
        shape = tokens, self._limits.vocab_size
        nbytes = float32.itemsize * prod(shape)
        require_free(nbytes, f"the logits of {tokens} tokens take", "give a shorter prompt")
        what = f"the logits of {tokens} tokens (fewer for a shorter prompt)"
        return Arena(nbytes, budget=self._budget, what=what).take(shape)


def _stop(worker: Worker) -> None:
    """Tell the thread to end; where the interpreter is leaving, let it finish its step before memory goes away."""
    worker.stop()
    if not threading.main_thread().is_alive():
        worker.join(STEP_WAIT)


def _limit(name: str, value: int | None, most: int) -> int:
    """The value, or the most where none is given."""
    if value is None:
        return most
    if not 1 <= value <= most:
        raise ConfigError(f"{name}={value} cannot be used: expected 1 to {most}")
    return value
