"""A model in memory: everything that loading makes and ``close`` gives back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from pio.cache.protocol import Cache
from pio.config.decoder import DecoderConfig
from pio.config.runtime import RuntimeConfig
from pio.engine.batch_manager import BatchManager
from pio.layers.decoder import Decoder
from pio.layers.placement import Placement
from pio.layers.quantization import Quantization
from pio.layers.source import Source
from pio.layers.warm_up import warm_up
from pio.layers.workspace import Workspace
from pio.loading.checkpoint import Checkpoint
from pio.loading.weights import Weights
from pio.memory import step
from pio.memory.budget import MemoryBudget
from pio.ops import compilation
from pio.plugin.answer_defaults import end_tokens, generation_defaults
from pio.plugin.assembly import (
    UNLIMITED,
    BuildModel,
    assemble,
    check_prefixes,
    check_stored,
    context_length,
    finds_prefixes,
    quantization_of,
    rehearse,
    reserve_cache,
    source_options,
    speculation_of,
    with_draft_room,
    workspace_of,
)
from pio.plugin.device_choice import device_of
from pio.plugin.disk_options import check_disk, disk_folder, disk_options
from pio.plugin.media_processor import MediaProcessor, check_seeing
from pio.plugin.placing import check_options, place
from pio.plugin.prompts import Prompts
from pio.structured.grammars import Grammars
from pio.text.chat_template import ChatTemplate
from pio.text.tokenizer import Tokenizer

MakeProcessor: TypeAlias = Callable[[Checkpoint, Any, Tokenizer | None, RuntimeConfig], MediaProcessor | None]


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
        media: MakeProcessor | None = None,
        plugin: type = object,
        whole: bool = False,
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
            media: Makes what reads pictures, of folder, config, tokenizer and options; None for text alone.
            plugin: Class of the plugin that builds the model.
            whole: Whether a GPU must have room for all of it.

        Raises:
            CheckpointError: Weights and config contradict each other, or a file is damaged.
            ConfigError: The runtime options ask for more context than the model has, for another quantization, or for
                what a model of this kind does not keep of prompts.
            OutOfMemoryError: It does not fit the limit or the machine.
        """
        self.checkpoint = checkpoint
        self.config = config
        runtime = with_draft_room(runtime, config)
        if prompts is None:
            tokenizer = Tokenizer.from_folder(checkpoint.path, vocab_size=config.vocab_size)
            template = ChatTemplate.from_folder(checkpoint.path)
        else:
            tokenizer, template = prompts.optional_tokenizer, prompts.chat_template
        processor = None if prompts is None else prompts.media
        if processor is not None:  # the folder may be gone by now
            processor = processor.updated(runtime)
        elif media is not None:
            processor = media(checkpoint, config, tokenizer, runtime)
        self.generation_config = generation_defaults(checkpoint, config, tokenizer)
        ends = end_tokens(checkpoint, config, tokenizer)
        self.prompts = _prompts(checkpoint, tokenizer, template, processor, runtime)
        self.weights = weights
        folder = disk_folder(runtime)
        budget = MemoryBudget(runtime.memory_limit or UNLIMITED)
        quantization = quantization_of(config, runtime, packing)
        workspace = workspace_of(runtime, budget)
        what = build, config, weights, runtime, quantization
        placement = _placement(*what, workspace, budget, check, whole=whole)
        options = source_options(runtime, quantization)
        self._source = Source(weights, workspace, check=check, placement=placement, **options)
        with compilation.noting_unmade(set[str]()) as unmade:
            self.model, self._longest_context = assemble(build, config, weights, self._source, runtime, budget)
            self.context_length = self.prompts.most_tokens = self.model.max_positions
            check_stored(config, self._source.inventory)
            self.cache = reserve_cache(self.model, runtime)
            _ = self.model.workspace.storage  # refused here rather than in the first step
            warm_up(self.model, self.cache, check)
        named = plugin, checkpoint.config, weights
        disk = disk_options(folder, runtime, named, check, self.model.device, placement.computed, unmade)
        text = self.prompts if tokenizer else None
        self.manager = BatchManager(
            self.model,
            self.cache,
            eos_token_ids=ends,
            detokenizer=text.detokenizer if text else None,
            token_text=text.token_text if text else None,
            token_bytes=text.token_bytes if text else None,
            message=text.message if text else None,
            max_batch_sequences=runtime.max_batch_sequences,
            prefill_chunk=runtime.prefill_chunk,
            budget=budget,
            media_cache=runtime.media_cache,
            never=processor.mark_ids if processor else (),
            prefix_cache=finds_prefixes(runtime, self.cache),
            grammars=Grammars(tokenizer, self.model.vocab_size, ends) if tokenizer else None,
            close_thinking=text.closing_tokens if text else None,
            disk=disk,
            speculation=speculation_of(runtime, self.cache, self.context_length),
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
        """How matrices are held: ``layers``, ``tables`` (embedding and output head), and the ``tower``, if any."""
        names = {"linear": "layers", "table": "tables", "tower": "tower"}
        return {names[role]: ", ".join(sorted(forms)) for role, forms in sorted(self._source.inventory.formats.items())}

    @property
    def offloaded(self) -> dict[str, tuple[int, ...]]:
        """Layers of which weights do not lie on the model's GPU: ``copied`` and ``computed``."""
        placement = self.model.placement
        return {"copied": placement.copied, "computed": placement.computed}

    def check_weights(self) -> None:
        """Read all weights and check that they are numbers.

        Raises:
            CheckpointError: One holds NaN or an infinity; the message names it.
        """
        _check_weights(self.weights)

    def check_runtime(self, runtime: RuntimeConfig) -> None:
        """Refuse what can be seen to be impossible before this model makes room for another one of the same folder.

        Raises:
            ConfigError: As when it was made.
            DeviceError: There is no such device.
        """
        quantization_of(self.config, runtime, lambda _: None)
        check_seeing(runtime, self.prompts.media)
        context_length(runtime, self._longest_context)
        device_of(runtime)
        check_prefixes(runtime, self.cache)
        check_disk(runtime)
        check_options(runtime)
        with_draft_room(runtime, self.config)

    def close(self) -> None:
        """Cancel what runs and let go of all memory."""
        self.manager.close(partial(_give_back, self.model, self.cache))  # not before the last step, which may run still


def _prompts(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer | None,
    template: ChatTemplate,
    processor: MediaProcessor | None,
    runtime: RuntimeConfig,
) -> Prompts:
    """Put together what prompts are made with; the options must be possible with it."""
    check_seeing(runtime, processor)
    if processor is not None:
        template.modalities |= frozenset(processor.modalities)
    literal = runtime.literal_messages
    return Prompts(str(checkpoint.path), tokenizer, template, literal=literal, media=processor)


def _placement(
    build: BuildModel,
    config: DecoderConfig,
    weights: Weights,
    runtime: RuntimeConfig,
    quantization: Quantization,
    workspace: Workspace,
    budget: MemoryBudget,
    check: Callable[[], object],
    *,
    whole: bool,
) -> Placement:
    """Return where weights are to lie, once it is certain that the model fits; the budget has them then."""
    check_options(runtime)
    own = runtime.dtype is not None or quantization.forms or not runtime.mmap  # not the files' pages alone
    if runtime.memory_limit is None and not own and workspace.device.stream is None:
        return Placement()
    total, what, needs = rehearse(build, config, weights, runtime, quantization)
    budget.reserve(total, what)
    return place(needs, runtime, workspace, budget, check, whole)


def _give_back(model: Decoder, cache: Cache) -> None:
    with step.paused():  # a finaliser may come by in the middle of another model's step, which has nothing of this one
        model.forget_steps()
        cache.free()
        model.workspace.free()
        model.placement.free()


def _check_weights(weights: Weights) -> None:
    for name in sorted(weights.used):
        weights.check_finite(name)
