"""The interface of a model plugin, and all of it that does not depend on the model."""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeAlias, cast

from pio import dtypes, registry
from pio.cache.paged import PagedKVCache
from pio.config.decoder import DecoderConfig, eos_token_ids
from pio.config.runtime import RuntimeConfig
from pio.device import MemoryBudget
from pio.engine.batch_manager import BatchManager
from pio.engine.generation import Generation
from pio.engine.handle import Handle
from pio.engine.sampling_params import SamplingParams
from pio.errors import CapacityError, ConfigError, NumericalError, OutOfMemoryError, PioError
from pio.layers.decoder import Decoder
from pio.layers.source import Source
from pio.layers.warm_up import warm_up
from pio.loading.chat_template import ChatTemplate
from pio.loading.checkpoint import Checkpoint, resolve
from pio.loading.detokenizer import Detokenizer
from pio.loading.reasoning import opens_reasoning, split_reasoning
from pio.loading.tokenizer import Tokenizer
from pio.loading.weights import Weights
from pio.machine import available_memory, cpu_count
from pio.manifest import PluginManifest
from pio.metadata import ModelMetadata
from pio.progress import Progress
from pio.tensor import Tensor

Messages: TypeAlias = Sequence[Mapping[str, Any]]
Prompt: TypeAlias = str | Sequence[int] | Messages

_log = logging.getLogger("pio")


class TextModelPlugin(ABC):
    """A language model, ready to be called from any thread once loaded.

    A plugin names its configuration class and builds its model; everything else is here. ``pio.load`` makes one;
    as a context manager it gives its memory back at the end.
    """

    manifest_name: ClassVar[str]
    config_class: ClassVar[type[DecoderConfig]]

    def __init__(self) -> None:
        self._options: dict[str, Any] = {}
        self._path: str | os.PathLike[str] | None = None
        self._weights: Weights | None = None
        self._model: Decoder | None = None
        self._cache: PagedKVCache | None = None
        self._manager: BatchManager | None = None
        self._lock = threading.RLock()
        self.runtime = RuntimeConfig()
        self.budget: MemoryBudget | None = None
        self.config: DecoderConfig | None = None
        self.tokenizer: Tokenizer | None = None
        self.chat_template: ChatTemplate | None = None
        self.generation_config: dict[str, Any] = {}
        self.listed = True

    @abstractmethod
    def build_model(self, config: Any, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
        """Build the model from its weights; every tensor of the checkpoint is taken or ignored by name."""

    # --- life ---

    def initialize(self, path: str | os.PathLike[str] | None = None, *, download: bool = False, **options: Any) -> bool:
        """Set where the model is and how it is to run; ``load_model`` does the work.

        Args:
            path: As ``pio.load`` takes it.
            download: Fetch a repo that is not in the local cache.
            **options: Fields of ``pio.config.runtime.RuntimeConfig``.

        Returns:
            True.

        Raises:
            ConfigError: An option is unknown or its value cannot be used.
            CheckpointError: There is no such model.
        """
        self.runtime = RuntimeConfig.from_options(**options)
        if path is not None:
            self._path = resolve(path, download=download)
        return True

    def load_model(self, config: RuntimeConfig | None = None) -> Self:
        """Map the weights, build the model, reserve its memory. A loaded model is loaded anew.

        Args:
            config: How to run; by default what ``initialize`` set.

        Returns:
            The plugin, ready to use.

        Raises:
            CheckpointError: The folder is damaged or contradicts itself.
            UnsupportedModelError: The model asks for something that this plugin does not compute.
            OutOfMemoryError: Weights, cache and buffers do not fit the limit or the machine.
        """
        if self._path is None:
            raise ConfigError("there is no path; call initialize(path=...) first, or use pio.load(path)")
        with self._lock:
            self.cleanup()
            self.runtime = config or self.runtime
            try:
                with Progress(self.runtime.progress, f"loading {self._path}"):
                    self._load(Checkpoint(self._path))
            except BaseException:
                self.cleanup()
                raise
        return self

    def _load(self, checkpoint: Checkpoint) -> None:
        raw = checkpoint.config
        if raw.get("model_type") not in self.manifest.model_types:
            registry.choose(raw, self.manifest.name)  # raises the error that says so
        self.listed = self.manifest.lists(raw)
        config = self.config = self.config_class.from_checkpoint(raw)
        self.generation_config = checkpoint.generation_config
        self.tokenizer = Tokenizer.from_folder(checkpoint.path, vocab_size=config.vocab_size)
        self.chat_template = ChatTemplate.from_folder(checkpoint.path)
        weights = self.open_weights(checkpoint)
        runtime, budget = self.runtime, MemoryBudget(self.runtime.memory_limit or 1 << 62)
        self._weights, self.budget = weights, budget
        budget.reserve(weights.nbytes, "the weights")
        threads = runtime.threads or cpu_count()
        dtype = None if runtime.dtype is None else dtypes.dtype(runtime.dtype)
        model = self.build_model(config, Source(weights, threads=threads, dtype=dtype), runtime, budget)
        weights.finish()
        self._model = model
        context = min(runtime.context_length, model.max_positions)
        model.max_positions = context
        tokens = runtime.cache_tokens or context
        cache = self._cache = self._reserve_cache(model, tokens)
        self._manager = BatchManager(
            model,
            cache,
            eos_token_ids=self.eos_token_ids,
            detokenizer=self._detokenizer if self.tokenizer else None,
            token_text=self._token_text if self.tokenizer else None,
            max_batch_sequences=runtime.max_batch_sequences,
            prefill_chunk=min(runtime.prefill_chunk, model.max_batch_tokens),
        )
        warm_up(model, cache)

    def open_weights(self, checkpoint: Checkpoint) -> Weights:
        """Return the tensors of the model; a subclass may take them from elsewhere than the folder."""
        return checkpoint.weights()

    def _reserve_cache(self, model: Decoder, tokens: int) -> PagedKVCache:
        cache = model.new_cache(tokens)
        free = available_memory()
        if free is not None and cache.nbytes > free:
            cache.free()
            raise OutOfMemoryError(
                f"a cache of {tokens} tokens takes {cache.nbytes:,} bytes and the machine has {free:,} free; "
                f"ask for fewer with context_length or cache_tokens"
            )
        return cache

    def cleanup(self) -> bool:
        """Cancel what runs and give every byte back; more than once does no harm.

        Returns:
            True.
        """
        with self._lock:
            if self._manager is not None:
                self._manager.close()
            if self._cache is not None:
                self._cache.free()
            self._manager = self._cache = self._model = self._weights = self.budget = None
        return True

    def update(self, **options: Any) -> RuntimeConfig:
        """Change runtime options of a loaded model; requests that run are cancelled, and nothing changes on an error.

        Raises:
            ConfigError: An option is unknown or its value cannot be used; the model goes on as it was.
        """
        config = self.runtime.updated(**options)
        if config != self.runtime:
            if self._manager is None:
                self.runtime = config
            else:
                self.load_model(config)
        return self.runtime

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    # --- what it is ---

    @property
    def manifest(self) -> PluginManifest:
        """The plugin's manifest."""
        return registry.manifests()[self.manifest_name]

    @property
    def path(self) -> str | None:
        """The model's folder."""
        return None if self._path is None else os.fspath(self._path)

    @property
    def metadata(self) -> ModelMetadata:
        """What the plugin and the loaded model are, and the memory they take."""
        return ModelMetadata.of(self)

    def supports_config(self, config: Mapping[str, Any]) -> bool:
        """Return whether the plugin runs a model with this config.json."""
        if config.get("model_type") not in self.manifest.model_types:
            return False
        try:
            self.config_class.from_checkpoint(dict(config))
        except PioError:
            return False
        return True

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: generation_config.json wins over config.json."""
        assert self.config is not None
        return eos_token_ids(self.generation_config) or self.config.eos_token_ids

    @property
    def model(self) -> Decoder:
        """The loaded model.

        Raises:
            PioError: The plugin is not loaded, or was cleaned up.
        """
        if self._model is None:
            raise PioError("the model is not loaded; call load_model(), or pio.load again after cleanup()")
        return self._model

    @property
    def manager(self) -> BatchManager:
        """What runs requests.

        Raises:
            PioError: The plugin is not loaded, or was cleaned up.
        """
        if self._manager is None:
            raise PioError("the model is not loaded; call load_model(), or pio.load again after cleanup()")
        return self._manager

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of weights, cache and buffers."""
        if self._model is None or self._cache is None or self._weights is None:
            return {"weights": 0, "cache": 0, "buffers": 0}
        return {
            "weights": self._weights.nbytes,
            "cache": self._cache.nbytes,
            "buffers": self._model.workspace.nbytes,
        }

    # --- text ---

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text; special tokens in it count as such.

        Raises:
            ConfigError: The folder has no tokenizer.
        """
        return self._need_tokenizer().encode(text)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens included.

        Raises:
            ConfigError: The folder has no tokenizer, or an id is outside its vocabulary.
        """
        return self._need_tokenizer().decode(ids)

    def apply_chat_template(
        self,
        messages: Messages,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Return the prompt for a conversation, as the checkpoint's own template writes it.

        Args:
            messages: Dicts with ``role`` and ``content``.
            tools: JSON schemas of functions that the model may call.
            add_generation_prompt: End with the beginning of an answer.
            **variables: What the template knows besides, such as ``enable_thinking``.

        Raises:
            ConfigError: The folder has no chat template, or a message is malformed.
            CheckpointError: The template is broken or does what a template must not.
        """
        if self.chat_template is None:
            raise ConfigError(f"{self._path} has no chat template; give the prompt as text, with generate_text")
        return self.chat_template.render(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, **variables
        )

    def encode_prompt(
        self, prompt: Prompt, *, tools: Sequence[Mapping[str, Any]] | None = None, **variables: Any
    ) -> tuple[list[int], bool]:
        """Return the token ids of any kind of prompt, and whether it leaves the answer inside its reasoning."""
        if isinstance(prompt, str):
            return self.tokenize(prompt), False
        items = list(cast("Sequence[Any]", prompt))
        if items and isinstance(items[0], Mapping):
            text = self.apply_chat_template(items, tools=tools, **variables)
            return self._need_tokenizer().encode(text, add_special_tokens=False), opens_reasoning(text)
        if tools or variables:
            raise ConfigError("tools and template variables need a list of messages; found a plain prompt")
        return items, False

    def _need_tokenizer(self) -> Tokenizer:
        if self._model is None:
            self.model  # noqa: B018  raises what tells an unloaded model from one without a tokenizer
        if self.tokenizer is None:
            raise ConfigError(f"{self._path} has no tokenizer.json; give prompts as lists of token ids")
        return self.tokenizer

    def _detokenizer(self, skip_special_tokens: bool) -> Detokenizer:
        return Detokenizer(self._need_tokenizer(), skip_special_tokens=skip_special_tokens)

    def _token_text(self, token: int) -> str:
        return self._need_tokenizer().decode([token])

    # --- answers ---

    def submit(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        enable_thinking: bool | None = None,
        **fields: Any,
    ) -> Handle:
        """Queue a prompt and return at once; see ``generate`` for the arguments."""
        manager = self.manager
        merged = SamplingParams.merge(self.generation_config, params, **fields)
        variables = dict(template_variables or {})
        if enable_thinking is not None:
            variables["enable_thinking"] = enable_thinking
        ids, inside = self.encode_prompt(prompt, tools=tools, **variables)

        def split(text: str) -> tuple[str | None, str]:
            return split_reasoning(text, inside=inside)

        return manager.submit(ids, merged, split_reasoning=split if not isinstance(prompt, str) else None)

    def generate(self, prompt: Prompt, params: SamplingParams | None = None, **fields: Any) -> Generation:
        """Answer a prompt.

        Args:
            prompt: Text, token ids, or a list of messages.
            params: How to choose tokens and when to stop; the checkpoint's own defaults hold for the rest.
            **fields: Single sampling fields, which win over ``params``; and for messages ``tools``,
                ``enable_thinking`` and ``template_variables``.

        Returns:
            The text, its token ids, why it ended, and what it took. For messages, ``text`` is the answer and
            ``reasoning`` what the model thought before it.

        Raises:
            ConfigError: A field is unknown or out of range, or the prompt cannot be read.
            CapacityError: The prompt does not fit into the context or the cache.
            CancelledError: The model was closed meanwhile.
        """
        return self._checked(self.submit(prompt, params, **fields).result)

    def generate_text(self, prompt: Prompt, params: SamplingParams | None = None, **fields: Any) -> str:
        """Return the text of ``generate``."""
        return self.generate(prompt, params, **fields).text

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, **fields: Any) -> Iterator[str]:
        """Yield the answer as it comes, in whole characters; reasoning comes with its tags.

        Closing the iterator, or dropping it, cancels the request. Arguments and errors as ``generate``.
        """
        return iter(self.submit(prompt, params, **fields))

    def chat_completion(self, messages: Messages, params: SamplingParams | None = None, **fields: Any) -> str:
        """Return the answer to a conversation, without the reasoning. Arguments and errors as ``generate``."""
        if isinstance(messages, str) or not all(isinstance(m, Mapping) for m in cast("Sequence[Any]", messages)):
            raise ConfigError("chat_completion: expected a list of messages, each a dict with role and content")
        return self.generate(messages, params, **fields).text

    def infer(self, x: Prompt, params: SamplingParams | None = None, **fields: Any) -> Generation:
        """Answer one input of any kind the model takes; as ``generate``."""
        return self.generate(x, params, **fields)

    def infer_batch(
        self, xs: Sequence[Prompt], params: SamplingParams | None = None, **fields: Any
    ) -> list[Generation]:
        """Answer several inputs together, first come, first served; each answer is the one it gets alone."""
        handles: list[Handle] = []
        try:
            handles.extend(self.submit(x, params, **fields) for x in xs)
            return [self._checked(handle.result) for handle in handles]
        except BaseException:
            for handle in handles:
                handle.cancel()
            raise

    def logits(self, prompt: Prompt) -> Tensor:
        """Return the logits at every position of a prompt.

        Returns:
            float32 (tokens, vocabulary); row i predicts token i + 1.
        """
        manager = self.manager
        ids, _ = self.encode_prompt(prompt)
        return self._checked(lambda: manager.logits(ids))

    def _checked(self, result: Callable[[], Any]) -> Any:
        """Name the damaged weight where a model computes no numbers."""
        try:
            return result()
        except NumericalError:
            if self._weights is not None:
                self.check_weights()
            raise

    def check_weights(self) -> None:
        """Read all weights and check that they are numbers.

        Raises:
            CheckpointError: One holds NaN or an infinity; the message names it.
        """
        weights = self._weights
        if weights is None:
            raise PioError("the model is not loaded; call load_model() first")
        for name in sorted(weights.used):
            weights.check_finite(name)

    def fit_messages(self, messages: Messages, budget: int, **variables: Any) -> list[Mapping[str, Any]]:
        """Return the conversation without its oldest turns, so that its prompt has at most ``budget`` tokens.

        System messages stay, and so does the last message.

        Raises:
            CapacityError: What must stay is longer already.
        """
        return _fit(self, list(messages), budget, variables)


def _fit(
    plugin: TextModelPlugin, messages: list[Mapping[str, Any]], budget: int, variables: dict[str, Any]
) -> list[Mapping[str, Any]]:
    while True:
        ids, _ = plugin.encode_prompt(messages, **variables)
        if len(ids) <= budget:
            return messages
        turns = [i for i, m in enumerate(messages[:-1]) if m.get("role") != "system"]
        if not turns:
            raise CapacityError(
                f"the last message and the system message take {len(ids)} tokens, the budget is {budget}; "
                "shorten them or raise the budget"
            )
        drop = turns[0] + 1
        while drop < len(messages) - 1 and messages[drop].get("role") != "user":
            drop += 1
        messages = [m for i, m in enumerate(messages) if i >= drop or m.get("role") == "system"]


__all__ = ["Messages", "Prompt", "TextModelPlugin"]
