"""A model in memory: everything that loading makes and ``close`` gives back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pio import dtypes
from pio.cache.paged import PagedKVCache
from pio.config.decoder import DecoderConfig, eos_token_ids
from pio.config.runtime import RuntimeConfig
from pio.device import MemoryBudget, format_bytes
from pio.engine.batch_manager import BatchManager
from pio.engine.sampling_params import SamplingParams
from pio.errors import ConfigError, OutOfMemoryError
from pio.layers.decoder import Decoder
from pio.layers.source import Source
from pio.layers.warm_up import warm_up
from pio.loading.chat_template import ChatTemplate
from pio.loading.checkpoint import Checkpoint
from pio.loading.tokenizer import Tokenizer
from pio.loading.weights import Weights
from pio.machine import available_memory, cpu_count
from pio.prompts import Prompts

BuildModel = Callable[[Any, Source, RuntimeConfig, MemoryBudget], Decoder]
UNLIMITED = 1 << 62


class LoadedModel:
    """Weights, model, cache and what runs requests on them.

    Attributes:
        config: Of the model, from its checkpoint.
        generation_config: The checkpoint's defaults for sampling.
        prompts: Tokenizer and chat template.
        weights: Tensors of the checkpoint.
        model: Computes logits.
        cache: Keys and values of all running requests.
        manager: Runs requests from any thread.
        context_length: Tokens of prompt and answer together.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: DecoderConfig,
        weights: Weights,
        runtime: RuntimeConfig,
        build: BuildModel,
    ) -> None:
        """Put a model together.

        Args:
            checkpoint: The folder.
            config: What its config.json says.
            weights: Its tensors.
            runtime: How to run.
            build: Makes the model, and takes or ignores every tensor.

        Raises:
            CheckpointError: Weights and config contradict each other, or a file is damaged.
            ConfigError: The runtime options ask for more context than the model has.
            OutOfMemoryError: It does not fit the limit or the machine.
        """
        self.config = config
        self.generation_config = checkpoint.generation_config
        SamplingParams.merge(self.generation_config)  # refuses defaults that no request could run with
        tokenizer = Tokenizer.from_folder(checkpoint.path, vocab_size=config.vocab_size)
        self.prompts = Prompts(str(checkpoint.path), tokenizer, ChatTemplate.from_folder(checkpoint.path))
        self.weights = weights
        budget = MemoryBudget(runtime.memory_limit or UNLIMITED)
        budget.reserve(weights.nbytes, "the weights")
        dtype = None if runtime.dtype is None else dtypes.dtype(runtime.dtype)
        source = Source(weights, threads=min(runtime.threads or cpu_count(), cpu_count()), dtype=dtype, budget=budget)
        self.model = build(config, source, runtime, budget)
        weights.finish()
        self.context_length = self.model.max_positions = _context_length(runtime, self.model.max_positions)
        self.cache = self._reserve_cache(runtime.cache_tokens or self.context_length)
        warm_up(self.model, self.cache)
        text = self.prompts if tokenizer else None
        self.manager = BatchManager(
            self.model,
            self.cache,
            eos_token_ids=eos_token_ids(self.generation_config) or config.eos_token_ids,
            detokenizer=text.detokenizer if text else None,
            token_text=text.token_text if text else None,
            max_batch_sequences=runtime.max_batch_sequences,
            prefill_chunk=runtime.prefill_chunk,
            budget=budget,
            check_weights=partial(_check_weights, weights),  # no method: the manager must not keep this object
        )

    def _reserve_cache(self, tokens: int) -> PagedKVCache:
        cache, free = self.model.new_cache(tokens), available_memory()
        if free is not None and cache.nbytes > free:
            cache.free()
            raise OutOfMemoryError(
                f"a cache of {tokens} tokens takes {format_bytes(cache.nbytes)} and the machine has "
                f"{format_bytes(free)} free; ask for fewer with context_length or cache_tokens"
            )
        return cache

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of weights, cache and buffers."""
        return {
            "weights": self.weights.nbytes,
            "cache": self.cache.nbytes,
            "buffers": self.model.workspace.nbytes + self.manager.nbytes,
        }

    def check_weights(self) -> None:
        """Read all weights and check that they are numbers.

        Raises:
            CheckpointError: One holds NaN or an infinity; the message names it.
        """
        _check_weights(self.weights)

    def close(self) -> None:
        """Cancel what runs and let go of all memory."""
        self.manager.close()
        self.cache.free()


def _check_weights(weights: Weights) -> None:
    for name in sorted(weights.used):
        weights.check_finite(name)


def _context_length(runtime: RuntimeConfig, most: int) -> int:
    """The model's context where a default goes beyond it; refuses a wish that does."""
    if runtime.context_length > most and "context_length" in runtime.model_fields_set:
        raise ConfigError(
            f"context_length={runtime.context_length} cannot be used: this model's context has {most} tokens; ask for "
            f"at most {most}, or leave context_length out"
        )
    return min(runtime.context_length, most)
