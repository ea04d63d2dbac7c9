"""A model is put together of a folder's tensors as the runtime options want it, or only rehearsed to see if it fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pio import dtypes
from pio.cache.protocol import Cache, check_offered, tentative_tokens
from pio.config.decoder import DecoderConfig
from pio.config.runtime import DENSE_DRAFT, EXPERTS_DRAFT, RuntimeConfig
from pio.config.sizes import size_text
from pio.device import Device
from pio.engine.drafts.gate import MeasuredGate
from pio.engine.drafts.speculation import DRAFTS, SHARE, Speculation
from pio.engine.drafts.suffix_drafter import SuffixDrafter, running_bytes
from pio.engine.stored_prefixes import DiskNeeds
from pio.errors import CheckpointError, ConfigError, PioError
from pio.layers.decoder import Decoder
from pio.layers.outline import Outline
from pio.layers.placement import Census
from pio.layers.quantization import Quantization
from pio.layers.rehearsal import Rehearsal
from pio.layers.source import Inventory, Source
from pio.layers.workspace import ACTIVATIONS, Workspace
from pio.loading.weights import Weights
from pio.memory.budget import MemoryBudget
from pio.memory.fit import require_free
from pio.ops.sampling import Sampler
from pio.plugin.device_choice import device_of, rehearsed, rehearsed_cache
from pio.plugin.placing import Needs

BuildModel = Callable[[Any, Source, RuntimeConfig, MemoryBudget], Decoder]
UNLIMITED = 1 << 62


def outline(build: BuildModel, config: DecoderConfig, weights: Weights) -> Outline:
    """Return what a model takes from its weights, without reading a matrix or making one.

    Raises:
        CheckpointError: A tensor is missing or has another shape than the config asks for.
    """
    found = Outline(weights, Workspace(1))
    build(config, found, RuntimeConfig(prefill_chunk=1, max_batch_sequences=1), MemoryBudget(UNLIMITED))
    return found


def assemble(
    build: BuildModel,
    config: DecoderConfig,
    weights: Weights,
    source: Source,
    runtime: RuntimeConfig,
    budget: MemoryBudget,
) -> tuple[Decoder, int]:
    """Return a model whose context is cut to what the options ask for, and how long it could be.

    Raises:
        CheckpointError: Weights and config contradict each other.
        ConfigError: The options ask for more context than the model has, or a block takes other arguments than it gets.
    """
    model = build(config, source, runtime, budget)
    weights.finish()
    for layer in model.layers:
        layer.check()
    longest = model.max_positions
    model.max_positions = context_length(runtime, longest)
    return model, longest


def rehearse(
    build: BuildModel, config: DecoderConfig, weights: Weights, runtime: RuntimeConfig, quantization: Quantization
) -> tuple[int, str, Needs]:
    """Refuse what will not fit the limit or the machine, before any weight is read or converted.

    What layers compute in and the cache are made for it, which costs nothing as long as nobody writes there.

    Returns:
        The bytes of the weights as they will be held, what to call them, and what the model needs of a GPU.

    Raises:
        OutOfMemoryError: It does not fit.
    """
    census, options = Census(), source_options(runtime, quantization)
    device, likewise = device_of(runtime), rehearsed(runtime)
    source = Rehearsal(weights, workspace_of(likewise, None, device), placement=census, **options)
    weights.rehearsing = True
    try:
        model, _ = assemble(build, config, weights, source, likewise, MemoryBudget(UNLIMITED))
    finally:
        weights.rehearsing = False
    held = source.inventory
    what = "the weights"
    if quantization.forms:
        what += f" with quantize={runtime.quantize!r}"
    elif runtime.dtype is not None:
        what += f" as {runtime.dtype} (none with dtype=None)"
    budget = MemoryBudget(UNLIMITED if runtime.memory_limit is None else runtime.memory_limit)
    budget.reserve(held.total, what)
    remedy = "choose a smaller model or a format of fewer bits, or let pio quantize write a folder that is mapped"
    on_gpu, device_bytes = device.stream is not None, 0
    if not on_gpu:
        require_free(sum(held.made.values()), f"{what} take", remedy)
    if runtime.memory_limit is not None or on_gpu:
        budget.reserve(model.workspace.nbytes, ACTIVATIONS)
        if model.encoder is not None:
            budget.reserve(model.encoder.least_bytes, "the smallest picture")
        cache = reserve_cache(model, runtime) if device.stream is None else rehearsed_cache(model, runtime)
        remedies = "max_batch_sequences or prefix_cache" if cache.state_bytes else "context_length"
        budget.reserve(cache.nbytes, f"the cache (smaller with cache_tokens, {remedies})")
        if runtime.prefix_cache_path is not None:
            disk = DiskNeeds.of(cache, on_gpu=on_gpu)
            budget.reserve(sum(disk), "buffers of prefix_cache_path")
            device_bytes += disk.there
        speculation = speculation_of(runtime, cache, model.max_positions)
        if speculation is not None:
            budget.reserve(speculation.nbytes, DRAFTS)
        sampler = Sampler(model.vocab_size, budget, rows=model.max_batch_sequences, device=device)
        picture = 0 if model.encoder is None else model.encoder.least_bytes
        device_bytes += model.workspace.nbytes + picture + cache.nbytes + sampler.nbytes
    return held.total, what, Needs.of(census, held.total, device_bytes)


def reserve_cache(model: Decoder, runtime: RuntimeConfig) -> Cache:
    """Return a cache for as many tokens as the options ask for, or else for one whole context.

    Raises:
        ConfigError: The model makes a cache that lacks something that the engine needs.
        OutOfMemoryError: The machine does not have that much.
    """
    tokens = runtime.cache_tokens or model.max_positions
    cache = model.new_cache(tokens)
    try:
        check_offered(cache)
        remedy = "ask for fewer with context_length or cache_tokens"
        if model.device.stream is None:  # a GPU has given the memory by now, or refused
            require_free(cache.nbytes, f"a cache of {tokens} tokens takes", remedy)
    except PioError:
        if hasattr(cache, "free"):  # one that is refused may lack even this
            cache.free()
        raise
    return cache


def finds_prefixes(runtime: RuntimeConfig, cache: Cache) -> bool:
    """Return whether beginnings of prompts are found again.

    Raises:
        ConfigError: They were asked for, and the cache has no states to keep beside those of running sequences; or as
            for ``check_prefixes``.
    """
    check_prefixes(runtime, cache)
    asked = runtime.prefix_cache and "prefix_cache" in runtime.model_fields_set
    if asked and cache.state_bytes and cache.state_slots <= runtime.max_batch_sequences:
        raise ConfigError(
            f"prefix_cache={runtime.prefix_cache} cannot be used: this model's cache has states for "
            f"{cache.state_slots} sequences, all of which may run (max_batch_sequences={runtime.max_batch_sequences}), "
            "and none to keep; leave prefix_cache out"
        )
    return runtime.prefix_cache is not False


def check_prefixes(runtime: RuntimeConfig, cache: Cache) -> None:
    """Refuse a number of bytes for kept states where there are none, or where it is too small for any.

    Raises:
        ConfigError: It is so.
    """
    wanted = runtime.prefix_cache
    if isinstance(wanted, bool) or "prefix_cache" not in runtime.model_fields_set:
        return
    if not cache.state_bytes:
        raise ConfigError(
            f"prefix_cache={size_text(wanted)} cannot be used: it is for the states of recurrent layers, and this "
            "model has none; leave it out, and give more cache_tokens where more is to be kept"
        )
    if wanted < cache.state_bytes:
        raise ConfigError(
            f"prefix_cache={size_text(wanted)} is too small: what recurrent layers keep of one moment takes "
            f"{cache.state_bytes} bytes; give some times as much, or 'off'"
        )


def with_draft_room(runtime: RuntimeConfig, config: DecoderConfig) -> RuntimeConfig:
    """Return the options with as many tokens of a draft as suit the model, where they leave that open.

    Raises:
        ConfigError: A length was asked for, and no drafts.
    """
    if runtime.speculation == "off":
        if runtime.max_draft_tokens is not None:
            raise ConfigError(
                f"max_draft_tokens={runtime.max_draft_tokens} is of no use with speculation='off'; leave one of them "
                "out"
            )
        return runtime
    mixture = config.expert_share(1) < 1.0
    length = runtime.max_draft_tokens or (EXPERTS_DRAFT if mixture else DENSE_DRAFT)
    return runtime.model_copy(update={"max_draft_tokens": length})


def speculation_of(runtime: RuntimeConfig, cache: Cache, context: int) -> Speculation | None:
    """Return what drafts tokens, by options with room for them; None where nothing is drafted.

    So it is with a cache, of another package, whose states cannot wait for tokens that may not stand.

    Args:
        runtime: The options.
        cache: Of the model; its size says what the texts may take in which drafts are found.
        context: Tokens of a prompt and its answer at most.
    """
    if runtime.speculation == "off" or runtime.max_draft_tokens is None or tentative_tokens(cache) < 2:
        return None
    share = cache.nbytes // SHARE
    drafter = SuffixDrafter(share, running_bytes(context, runtime.max_batch_sequences, share))
    return Speculation(drafter, MeasuredGate(), runtime.max_draft_tokens)


def workspace_of(runtime: RuntimeConfig, budget: MemoryBudget | None, runs_on: Device | None = None) -> Workspace:
    """Return what the model computes in, on the device and with the threads that it is to have, or as if on another."""
    device = device_of(runtime)
    round_inputs = runtime.activation_dtype == "bfloat16"
    return Workspace(runtime.batch_tokens, budget, device=device, round_inputs=round_inputs, runs_on=runs_on)


def source_options(runtime: RuntimeConfig, quantization: Quantization) -> dict[str, Any]:
    """Return how layers take their weights, as the runtime options want them: arguments of a ``Source``."""
    return {
        "dtype": None if runtime.dtype is None else dtypes.dtype(runtime.dtype),
        "quantization": quantization,
        "inventory": Inventory(mapped=runtime.mmap and device_of(runtime).stream is None),
    }


def quantization_of(config: DecoderConfig, runtime: RuntimeConfig, packing: Callable[[str], None]) -> Quantization:
    """Return what is to become of matrices; nothing where the folder has them packed.

    Raises:
        ConfigError: The options ask for another quantization than the folder has, or for a policy of none.
    """
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


def check_stored(config: DecoderConfig, inventory: Inventory) -> None:
    """Refuse a folder whose matrices are packed otherwise than config.json says.

    Raises:
        CheckpointError: They are.
    """
    stored = config.quantization
    expected = Quantization.of(stored.format, stored.policy).forms if stored else {}
    for role, forms in inventory.stored.items():
        if forms != {expected.get(role, "")}:
            found = " and ".join(form or "floats" for form in sorted(forms))
            what = {"linear": "layers", "table": "the embedding and the output head", "tower": "the tower"}[role]
            raise CheckpointError(
                f"config.json: by quantization_config, {what} are {expected.get(role) or 'floats'}, but they are "
                f"stored as {found}; the files do not belong together, quantize the original folder again with pio "
                "quantize, or download it again"
            )


def context_length(runtime: RuntimeConfig, most: int) -> int:
    """Return the wanted context, or the model's where a default goes beyond it.

    Raises:
        ConfigError: A wish goes beyond it.
    """
    if runtime.context_length > most and "context_length" in runtime.model_fields_set:
        raise ConfigError(
            f"context_length={runtime.context_length} cannot be used: this model's context has {most} tokens; ask for "
            f"at most {most}, or leave context_length out"
        )
    return min(runtime.context_length, most)
