"""The interface of a model plugin, and all of it that does not depend on the model."""

from __future__ import annotations

import os
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NoReturn, Self, TypeVar

from pio import prompts, registry
from pio.config.decoder import DecoderConfig
from pio.config.runtime import RuntimeConfig
from pio.device import MemoryBudget, memory_errors
from pio.engine.generation import Generation
from pio.engine.handle import Handle, LogitsHandle, Stream
from pio.engine.sampling_params import Params, SamplingParams
from pio.errors import ConfigError, PioError
from pio.layers.decoder import Decoder
from pio.layers.source import Source
from pio.loaded import LoadedModel
from pio.loading.checkpoint import Checkpoint, resolve
from pio.loading.weights import Weights
from pio.manifest import PluginManifest
from pio.metadata import ModelMetadata
from pio.progress import Progress, short_name
from pio.prompts import Marks, Message, Messages, Prompt
from pio.tensor import Tensor

T = TypeVar("T")
Tools = Sequence[Mapping[str, Any]]


class TextModelPlugin(ABC):
    """A language model, ready to be called from any thread once loaded.

    A plugin names its configuration class and builds its model; everything else is here. ``pio.load`` makes one;
    as a context manager it gives its memory back at the end.

    Attributes:
        manifest_name: Name of the plugin, which finds its manifest.
        config_class: Reads config.json.
        fill_marks: Tokens before a prefix, a suffix, and what stands between them; None if the model fills no gaps.
        runtime: How the model runs, or will run once loaded.
    """

    manifest_name: ClassVar[str]
    config_class: ClassVar[type[DecoderConfig]]
    fill_marks: ClassVar[Marks | None] = None

    def __init__(self) -> None:
        self._path: str | None = None
        self._loaded: LoadedModel | None = None
        self._metadata: ModelMetadata | None = None  # of the model that was loaded last
        self._lock = threading.RLock()
        self.runtime = RuntimeConfig()

    @abstractmethod
    def build_model(self, config: Any, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
        """Build the model from its weights; every tensor of the checkpoint is taken or ignored by name."""

    def open_weights(self, checkpoint: Checkpoint) -> Weights:
        """Return the tensors of the model; a subclass may take them from elsewhere than the folder."""
        return checkpoint.weights()

    # Loading

    def initialize(self, path: str | os.PathLike[str] | None = None, *, download: bool = False, **options: Any) -> bool:
        """Set where the model is and how it is to run; ``load_model`` does the work. Returns True.

        Args:
            path: As ``pio.load`` takes it.
            download: Fetch a repo that is not in the local cache.
            **options: Fields of ``RuntimeConfig``.

        Raises:
            ConfigError: An option is unknown or its value cannot be used.
            CheckpointError: There is no such model.
        """
        self.runtime = RuntimeConfig.from_options(**options)
        if path is not None:
            self._path, self._metadata = os.fspath(resolve(path, download=download)), None
        return True

    def load_model(self, config: RuntimeConfig | None = None) -> Self:
        """Map the weights, build the model, reserve its memory; return the plugin. A loaded model is loaded anew.

        Args:
            config: How to run; by default what ``initialize`` set.

        Raises:
            CheckpointError: The folder is damaged or contradicts itself.
            UnsupportedModelError: The model asks for something that this plugin does not compute.
            OutOfMemoryError: Weights, cache and buffers do not fit the limit or the machine.
        """
        if self._path is None:
            raise ConfigError("there is no path; call initialize(path=...) first, or use pio.load(path)")
        shows = (config or self.runtime).progress
        doing = f"loading {short_name(self._path)}"
        with self._lock, memory_errors(doing), Progress(shows, doing) as shown:
            self.cleanup()
            self.runtime = config or self.runtime
            checkpoint = Checkpoint(self._path, mapped=self.runtime.mmap)
            registry.choose(checkpoint.config, self.manifest.name)  # refuses another architecture, by name
            model_config = self.config_class.from_checkpoint(checkpoint.config)
            weights = self.open_weights(checkpoint)
            packing = shown.counting(f"quantizing to {self.runtime.quantize}", lambda: weights.matrices)
            self._loaded = LoadedModel(checkpoint, model_config, weights, self.runtime, self.build_model, packing)
            self._metadata = ModelMetadata.of(self, self._loaded)
        return self

    def update(self, **options: Any) -> RuntimeConfig:
        """Change runtime options of a loaded model; requests that run are cancelled, new ones wait for it.

        Nothing changes on an error, nor on Ctrl-C: the model is loaded as it was.

        Raises:
            ConfigError: An option is unknown or its value cannot be used; the model goes on as it was.
            OutOfMemoryError: The model does not fit with these options; it is loaded as it was.
        """
        with self._lock:
            before, config = self.runtime, self.runtime.updated(**options)
            if config != before and self._loaded is not None:
                try:
                    self.load_model(config)
                except BaseException as error:
                    traceback.clear_frames(error.__traceback__)  # they keep the memory of half a model
                    self.load_model(before)
                    raise
            self.runtime = config
            return config

    def cleanup(self) -> bool:
        """Cancel what runs and give every byte back; more than once does no harm. Returns True."""
        with self._lock:
            loaded, self._loaded = self._loaded, None
            if loaded is not None:
                loaded.close()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    def __reduce__(self) -> NoReturn:
        raise PioError(
            "a model belongs to its process and can neither be copied nor pickled; pass its path instead, and load it "
            f"in each process: pio.load({self._path!r})"
        )

    # What it is

    @property
    def manifest(self) -> PluginManifest:
        """The plugin's manifest."""
        return registry.manifest_of(type(self))

    @property
    def path(self) -> str | None:
        """The model's folder."""
        return self._path

    @property
    def loaded(self) -> LoadedModel:
        """The model in memory; waits for one that is being loaded.

        Raises:
            PioError: The plugin is not loaded, or was cleaned up.
        """
        loaded = self._loaded
        if loaded is None:
            with self._lock:
                loaded = self._loaded
        if loaded is None:
            raise PioError("the model is not loaded; call load_model(), or pio.load again after cleanup()")
        return loaded

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._loaded is not None

    @property
    def metadata(self) -> ModelMetadata:
        """What the plugin and its model are, and the memory they take.

        Before the model is loaded it is what the manifest says; after ``cleanup`` the model's, without memory.
        """
        loaded, last = self._loaded, self._metadata
        if loaded is None and last is not None:
            return replace(last, memory=dict.fromkeys(last.memory, 0))
        return ModelMetadata.of(self, loaded)

    def supports_config(self, config: Mapping[str, Any]) -> bool:
        """Return whether the plugin runs a model with this config.json."""
        if config.get("model_type") not in self.manifest.model_types:
            return False
        try:
            self.config_class.from_checkpoint(dict(config))
        except PioError:
            return False
        return True

    def check_weights(self) -> None:
        """Read all weights and check that they are numbers.

        Raises:
            CheckpointError: One holds NaN or an infinity; the message names it.
        """
        self.loaded.check_weights()

    # Text

    def tokenize(self, text: str, *, literal: bool = False) -> list[int]:
        """Return the token ids of a text; control tokens in it count as such, or with ``literal`` stay letters.

        Raises:
            ConfigError: The folder has no tokenizer.
        """
        return self.loaded.prompts.tokenizer.encode(text, literal=literal)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens included.

        Raises:
            ConfigError: The folder has no tokenizer, or an id is outside its vocabulary.
        """
        return self.loaded.prompts.tokenizer.decode(ids)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token adds to a text; they may be part of a character.

        Raises:
            ConfigError: The folder has no tokenizer, or the id is outside its vocabulary.
        """
        return self.loaded.prompts.token_bytes(token_id)

    def apply_chat_template(
        self,
        messages: Messages,
        *,
        tools: Tools | None = None,
        add_generation_prompt: bool | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> str:
        """Return the prompt for a conversation, as the checkpoint's own template writes it.

        Args:
            messages: Dicts with ``role`` and ``content``.
            tools: JSON schemas of functions that the model may call.
            add_generation_prompt: End with the beginning of an answer; by default unless the last message is continued.
            template_variables: What the template knows besides, such as ``enable_thinking``.
            **variables: The same, one by one; and ``continue_final_message=True``, to leave the last message open.

        Raises:
            ConfigError: The folder has no chat template, it has no place for tools, or a message is malformed.
            CheckpointError: The template is broken or does what a template must not.
        """
        named = {"tools": tools, "add_generation_prompt": add_generation_prompt, **variables}
        return self.loaded.prompts.render(messages, **prompts.template_variables(template_variables, **named))

    def fit_messages(
        self,
        messages: Messages,
        budget: int,
        *,
        template_variables: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> list[Message]:
        """Return the conversation without its oldest turns, so that its prompt has at most ``budget`` tokens.

        System messages stay, and so does the last turn. Variables as in ``apply_chat_template``.

        Raises:
            CapacityError: What must stay is longer already.
            ConfigError: The folder has no chat template, or a message is malformed.
        """
        given = prompts.template_variables(template_variables, **variables)
        return self.loaded.prompts.fit(messages, budget, **given)

    # Answers

    def submit(
        self,
        prompt: Prompt | None = None,
        params: Params | None = None,
        *,
        prefix: str | None = None,
        suffix: str | None = None,
        tools: Tools | None = None,
        enable_thinking: bool | None = None,
        continue_final_message: bool | str | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Handle:
        """Queue a prompt and return at once; see ``generate`` for the arguments."""
        named = {"enable_thinking": enable_thinking, "continue_final_message": continue_final_message}
        variables = prompts.template_variables(template_variables, tools=tools, **named)

        def start(loaded: LoadedModel) -> Handle:
            merged = SamplingParams.merge(loaded.generation_config, params, **fields)
            if prefix is not None or suffix is not None:
                ids = loaded.prompts.fill(prompt, prefix, suffix, self.fill_marks, **variables)
                return loaded.manager.submit(ids, merged)
            ids, reasoning = loaded.prompts.encode(prompt, **variables)
            return loaded.manager.submit(ids, merged, reasoning=reasoning)

        return self._start(start)

    def generate(self, prompt: Prompt | None = None, params: Params | None = None, **fields: Any) -> Generation:
        """Answer a prompt.

        Args:
            prompt: Text, token ids, or a list of messages. Models for code also take ``prefix`` and ``suffix`` in its
                place, and answer with what stands between them.
            params: How to choose tokens and when to stop, as ``SamplingParams`` or a dict of its fields; the
                checkpoint's own defaults hold for the rest.
            **fields: Single sampling fields, which win over ``params``; and for messages ``tools``,
                ``enable_thinking``, ``continue_final_message`` and ``template_variables``.

        Returns:
            The text, its token ids, why it ended, and what it took. For messages, ``text`` is the answer and
            ``reasoning`` what the model thought before it.

        Raises:
            ConfigError: A field is unknown or out of range, or the prompt cannot be read.
            CapacityError: The prompt does not fit into the context or the cache.
            CancelledError: The model was closed meanwhile.
        """
        return self.submit(prompt, params, **fields).result()

    def generate_text(self, prompt: Prompt | None = None, params: Params | None = None, **fields: Any) -> str:
        """Return the text of ``generate``."""
        return self.generate(prompt, params, **fields).text

    def stream(self, prompt: Prompt | None = None, params: Params | None = None, **fields: Any) -> Stream[str]:
        """Yield the answer as it comes, in whole characters; reasoning comes with its tags.

        Closing the iterator, or dropping it, cancels the request. Arguments and errors as ``generate``.
        """
        handle = self.submit(prompt, params, **fields)
        try:
            return iter(handle)
        except ConfigError:  # several answers: nobody will read them
            handle.cancel()
            raise

    def chat_completion(self, messages: Messages, params: Params | None = None, **fields: Any) -> str:
        """Return the answer to a conversation, without the reasoning. Arguments and errors as ``generate``.

        Raises:
            UnfinishedAnswerError: The answer ended inside the reasoning.
        """
        prompts.check_conversation(messages)
        return prompts.answer_text(self.generate(messages, params, **fields))

    def infer(self, x: Prompt, params: Params | None = None, **fields: Any) -> Generation:
        """Answer one input of any kind the model takes; as ``generate``."""
        return self.generate(x, params, **fields)

    def infer_batch(self, xs: Sequence[Prompt], params: Params | None = None, **fields: Any) -> list[Generation]:
        """Answer several inputs together, first come, first served; each answer is the one it gets alone."""
        handles: list[Handle] = []
        try:
            for x in prompts.check_prompts(xs):
                handles.append(self.submit(x, params, **fields))  # noqa: PERF401  those queued are cancelled on error
            return [handle.result() for handle in handles]
        except BaseException:
            for handle in handles:
                handle.cancel()
            raise

    def logits(self, prompt: Prompt) -> Tensor:
        """Return the logits at every position of a prompt.

        Returns:
            float32 (tokens, vocabulary); row i predicts token i + 1.

        Raises:
            OutOfMemoryError: They do not fit into ``memory_limit`` or the machine. They count as long as they live.
        """

        def start(loaded: LoadedModel) -> LogitsHandle:
            return loaded.manager.submit_logits(loaded.prompts.encode(prompt)[0])

        return self._start(start).result()

    def _start(self, start: Callable[[LoadedModel], T]) -> T:
        """Start a request; where ``update`` replaces the model meanwhile, on the new one."""
        while True:
            loaded = self.loaded
            try:
                return start(loaded)
            except PioError:
                if loaded is self._loaded:
                    raise
