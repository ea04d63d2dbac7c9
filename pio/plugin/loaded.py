"""A model in memory: everything that loading makes and ``close`` gives back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

from pio import dtypes
from pio.cache.protocol import Cache
from pio.config.decoder import DecoderConfig, eos_token_ids
from pio.config.generation import sampling_defaults
from pio.config.runtime import RuntimeConfig
from pio.device import Device
from pio.engine.batch_manager import BatchManager
from pio.engine.penalties import check_token_ids
from pio.engine.sampling_params import SamplingParams
from pio.errors import CheckpointError, ConfigError, OutOfMemoryError
from pio.layers.decoder import Decoder
from pio.layers.outline import Outline
from pio.layers.quantization import Quantization
from pio.layers.rehearsal import Rehearsal
from pio.layers.source import Inventory, Source
from pio.layers.warm_up import warm_up
from pio.layers.workspace import ACTIVATIONS, Workspace
from pio.loading.checkpoint import Checkpoint
from pio.loading.weights import Weights
from pio.machine import thread_count
from pio.memory.budget import MemoryBudget
from pio.memory.fit import require_free
from pio.ops.sampling import Sampler
from pio.plugin.prompts import Prompts
from pio.text.chat_template import ChatTemplate
from pio.text.tokenizer import Tokenizer

BuildModel = Callable[[Any, Source, RuntimeConfig, MemoryBudget], Decoder]
UNLIMITED = 1 << 62


class LoadedModel:
    """Weights, model, cache and what runs requests on them.

    Attributes:
        checkpoint: The folder.
        config: Of the model, from its checkpoint.
        generation_config: The sampling fields that the checkpoint has defaults for.
        prompts: Tokenizer and chat template.
        weights: Tensors of the checkpoint.
        model: Computes logits.
        cache: What layers keep of the tokens of all running requests: keys and values, latents, states.
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
        packing: Callable[[str], None] = lambda _: None,
        prompts: Prompts | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """Put a model together.

        Args:
            checkpoint: The folder.
            config: What its config.json says.
            weights: Its tensors.
            runtime: How to run.
            build: Makes the model, and takes or ignores every tensor.
            packing: Called with the name of each weight that is quantized.
            prompts: The folder's tokenizer and chat template, where they were read before.
            check: Called between any two steps that may take long; what it raises ends the building.

        Raises:
            CheckpointError: Weights and config contradict each other, or a file is damaged.
            ConfigError: The runtime options ask for more context than the model has, or for another quantization.
            OutOfMemoryError: It does not fit the limit or the machine.
        """
        self.checkpoint = checkpoint
        self.config = config
        if prompts is None:
            tokenizer = Tokenizer.from_folder(checkpoint.path, vocab_size=config.vocab_size)
            template = ChatTemplate.from_folder(checkpoint.path)
        else:
            tokenizer, template = prompts.optional_tokenizer, prompts.chat_template
        self.generation_config = _generation_config(checkpoint, config, tokenizer)
        ends = _end_tokens(checkpoint, config, tokenizer)
        self.prompts = Prompts(str(checkpoint.path), tokenizer, template, literal=runtime.literal_messages)
        self.weights = weights
        budget = MemoryBudget(runtime.memory_limit or UNLIMITED)
        quantization = _quantization(config, runtime, packing)
        own = runtime.dtype is not None or quantization.forms or not runtime.mmap  # not the files' pages alone
        if runtime.memory_limit is not None or own:
            budget.reserve(*_rehearse(build, config, weights, runtime, quantization))
        options = _source_options(runtime, quantization)
        self._source = Source(weights, _workspace(runtime, budget), check=check, **options)
        self.model, self._longest_context = _build(build, config, weights, self._source, runtime, budget)
        self.context_length = self.model.max_positions
        _check_stored(config, self._source.inventory)
        self.cache = _reserve_cache(self.model, runtime)
        _ = self.model.workspace.storage  # refused here rather than in the first step
        warm_up(self.model, self.cache, check)
        text = self.prompts if tokenizer else None
        self.manager = BatchManager(
            self.model,
            self.cache,
            eos_token_ids=ends,
            detokenizer=text.detokenizer if text else None,
            token_text=text.token_text if text else None,
            token_bytes=text.token_bytes if text else None,
            max_batch_sequences=runtime.max_batch_sequences,
            prefill_chunk=runtime.prefill_chunk,
            budget=budget,
            check_weights=partial(_check_weights, weights),  # no method: the manager must not keep this object
        )

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of weights, cache and buffers."""
        return {
            "weights": self._source.inventory.total,
            "cache": self.cache.nbytes,
            "buffers": self.model.workspace.nbytes + self.manager.nbytes,
        }

    @property
    def expert_bytes(self) -> int:
        """Bytes of the weights of which a token meets only some: those of experts."""
        return self._source.inventory.expert_bytes

    @property
    def formats(self) -> dict[str, str]:
        """How matrices are held: of ``layers``, and of ``tables``, the embedding and the output head."""
        names = {"linear": "layers", "table": "tables"}
        return {names[role]: ", ".join(sorted(forms)) for role, forms in sorted(self._source.inventory.formats.items())}

    def check_weights(self) -> None:
        """Read all weights and check that they are numbers.

        Raises:
            CheckpointError: One holds NaN or an infinity; the message names it.
        """
        _check_weights(self.weights)

    def check_runtime(self, runtime: RuntimeConfig) -> None:
        """Refuse what can be seen to be impossible before this model makes room for another one of the same folder.

        Raises:
            ConfigError: The options ask for more context than the model has, or for another quantization.
        """
        _quantization(self.config, runtime, lambda _: None)
        _context_length(runtime, self._longest_context)

    def close(self) -> None:
        """Cancel what runs and let go of all memory."""
        self.manager.close(partial(_give_back, self.model, self.cache))  # not before the last step, which may run still


def _give_back(model: Decoder, cache: Cache) -> None:
    model.forget_steps()
    cache.free()
    model.workspace.free()


def _generation_config(checkpoint: Checkpoint, config: DecoderConfig, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The folder's defaults for sampling; refuses those that no request could run with."""
    defaults = sampling_defaults(checkpoint.generation_config)
    params = SamplingParams.merge(defaults)
    if params.stop and tokenizer is None:
        raise CheckpointError(
            "generation_config.json: stop_strings cannot be found without tokenizer.json, which is missing; download "
            "it, or take the field out of the file"
        )
    try:
        check_token_ids(params, config.vocab_size)
    except ConfigError as error:
        raise CheckpointError(
            f"generation_config.json: {error}; correct the field or download the model again"
        ) from None
    return defaults


def _end_tokens(checkpoint: Checkpoint, config: DecoderConfig, tokenizer: Tokenizer | None) -> frozenset[int]:
    """Every token that one of the folder's files says ends an answer."""
    named = None if tokenizer is None else tokenizer.eos_token_id
    if named is not None and named >= config.vocab_size:
        named = None  # a token that was added to the tokenizer alone, which the model can never choose
    found = {
        "config.json: eos_token_id": config.eos_token_ids,
        "generation_config.json: eos_token_id": eos_token_ids(checkpoint.generation_config, "generation_config.json"),
        "tokenizer_config.json: eos_token": () if named is None else (named,),
    }
    for field, ids in found.items():
        if max(ids, default=0) >= config.vocab_size:
            raise CheckpointError(
                f"{field} is the token id {max(ids)}, which is outside the vocabulary, expected 0 to "
                f"{config.vocab_size - 1}; correct the file or download the model again"
            )
    return frozenset(chain.from_iterable(found.values()))


def outline(build: BuildModel, config: DecoderConfig, weights: Weights) -> Outline:
    """Return what a model takes from its weights, without reading a matrix or making one.

    Raises:
        CheckpointError: A tensor is missing or has another shape than the config asks for.
    """
    found = Outline(weights, Workspace(1))
    build(config, found, RuntimeConfig(prefill_chunk=1, max_batch_sequences=1), MemoryBudget(UNLIMITED))
    return found


def _quantization(config: DecoderConfig, runtime: RuntimeConfig, packing: Callable[[str], None]) -> Quantization:
    """What is to become of matrices; nothing where the folder has them packed."""
    stored = config.quantization
    if stored is None:
        if runtime.quantize is None and "quantize_policy" in runtime.model_fields_set:
            raise ConfigError(
                f"quantize_policy={runtime.quantize_policy!r} is of no use where nothing is quantized; give "
                "quantize='int4' too, or leave quantize_policy out"
            )
        return Quantization.of(runtime.quantize, runtime.quantize_policy, packing)
    for option, found in (("quantize", stored.format), ("quantize_policy", stored.policy)):
        wanted = getattr(runtime, option)
        if wanted != found and wanted is not None and option in runtime.model_fields_set:
            raise ConfigError(
                f"{option}={wanted!r} cannot be used: this folder is quantized already, with {option}={found!r}; leave "
                "the option out, or load the original folder"
            )
    return Quantization()


def _build(
    build: BuildModel,
    config: DecoderConfig,
    weights: Weights,
    source: Source,
    runtime: RuntimeConfig,
    budget: MemoryBudget,
) -> tuple[Decoder, int]:
    """Return a model whose context is cut to what the options ask for, and how long it could be."""
    model = build(config, source, runtime, budget)
    weights.finish()
    for layer in model.layers:
        layer.check()
    longest = model.max_positions
    model.max_positions = _context_length(runtime, longest)
    return model, longest


def _rehearse(
    build: BuildModel, config: DecoderConfig, weights: Weights, runtime: RuntimeConfig, quantization: Quantization
) -> tuple[int, str]:
    """Refuse what will not fit the limit or the machine, before any weight is read or converted.

    What layers compute in and the cache are made for it, which costs nothing as long as nobody writes there.

    Returns:
        The bytes of the weights as they will be held, and what to call them.
    """
    source = Rehearsal(weights, _workspace(runtime, None), **_source_options(runtime, quantization))
    weights.rehearsing = True
    try:
        model, _ = _build(build, config, weights, source, runtime, MemoryBudget(UNLIMITED))
    finally:
        weights.rehearsing = False
    held, options = source.inventory, runtime.quantize if quantization.forms else None
    what = "the weights"
    if options is not None:
        what += f" with quantize={options!r}"
    elif runtime.dtype is not None:
        what += f" as {runtime.dtype} (none with dtype=None)"
    budget = MemoryBudget(UNLIMITED if runtime.memory_limit is None else runtime.memory_limit)
    budget.reserve(held.total, what)
    remedy = "choose a smaller model or a format of fewer bits, or let pio quantize write a folder that is mapped"
    require_free(sum(held.made.values()), f"{what} take", remedy)
    if runtime.memory_limit is not None:
        budget.reserve(model.workspace.nbytes, ACTIVATIONS)
        budget.reserve(_reserve_cache(model, runtime).nbytes, "the cache (smaller with cache_tokens or context_length)")
        Sampler(model.vocab_size, budget)
    return held.total, what


def _reserve_cache(model: Decoder, runtime: RuntimeConfig) -> Cache:
    tokens = runtime.cache_tokens or model.max_positions
    cache = model.new_cache(tokens)
    try:
        remedy = "ask for fewer with context_length or cache_tokens"
        require_free(cache.nbytes, f"a cache of {tokens} tokens takes", remedy)
    except OutOfMemoryError:
        cache.free()
        raise
    return cache


def _workspace(runtime: RuntimeConfig, budget: MemoryBudget | None) -> Workspace:
    """What the model computes in, with the threads that it is to have: no more than there are cores."""
    usable = thread_count()
    device = Device("cpu", min(runtime.threads or usable, usable))
    round_inputs = runtime.activation_dtype == "bfloat16"
    return Workspace(runtime.batch_tokens, budget, device=device, round_inputs=round_inputs)


def _source_options(runtime: RuntimeConfig, quantization: Quantization) -> dict[str, Any]:
    """How layers take their weights, as the runtime options want them."""
    return {
        "dtype": None if runtime.dtype is None else dtypes.dtype(runtime.dtype),
        "quantization": quantization,
        "inventory": Inventory(mapped=runtime.mmap),
    }


def _check_stored(config: DecoderConfig, inventory: Inventory) -> None:
    """Refuse a folder whose matrices are packed otherwise than config.json says."""
    stored = config.quantization
    expected = Quantization.of(stored.format, stored.policy).forms if stored else {}
    for role, forms in inventory.stored.items():
        if forms != {expected.get(role, "")}:
            found = " and ".join(form or "floats" for form in sorted(forms))
            what = "layers" if role == "linear" else "the embedding and the output head"
            raise CheckpointError(
                f"config.json: by quantization_config, {what} are {expected.get(role) or 'floats'}, but they are "
                f"stored as {found}; the files do not belong together, quantize the original folder again with pio "
                "quantize, or download it again"
            )


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
