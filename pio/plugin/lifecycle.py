"""How a plugin comes by a model in memory, changes how it runs, and lets go of it; from any thread, at any moment."""

from __future__ import annotations

import os
import traceback
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, NoReturn, Self

from pio.config.decoder import DecoderConfig
from pio.config.runtime import RuntimeConfig
from pio.errors import CancelledError, ConfigError, PioError
from pio.layers.decoder import Decoder
from pio.layers.source import Source
from pio.loading.checkpoint import Checkpoint, resolve
from pio.loading.hub_cache import short_name
from pio.loading.weights import Weights
from pio.memory.budget import MemoryBudget
from pio.memory.refusal import memory_errors
from pio.plugin import registry
from pio.plugin.device_choice import placed
from pio.plugin.earlier import plugin_code
from pio.plugin.loaded_model import LoadedModel
from pio.plugin.manifest import PluginManifest
from pio.plugin.media_processor import MediaProcessor
from pio.plugin.metadata import ModelMetadata
from pio.plugin.one_load import Load, Loads
from pio.plugin.prompts import Prompts
from pio.progress.progress import Progress
from pio.text.tokenizer import Tokenizer
from pio.threads import require_turns


class Files(NamedTuple):
    """What is read from a folder; with it a model can be built again, also where the folder is gone by then."""

    checkpoint: Checkpoint
    config: DecoderConfig
    weights: Weights
    prompts: Prompts | None


class Lifecycle(ABC):
    """Loads a model, changes its options and gives it back.

    One load or update runs at a time, and whoever needs the model waits for it. ``cleanup`` waits for none: it may be
    called in a signal handler and in a finaliser, whatever that interrupts; a load that it meets ends with an error.

    Attributes:
        manifest_name: Name of the plugin, which finds its manifest.
        config_class: Reads config.json.
        call_format: How the model writes calls of tools, where its chat template does not show it: "hermes",
            "qwen3_coder" or "glm"; None if it calls none.
        runtime: How the model runs, or will run once loaded.
    """

    manifest_name: ClassVar[str]
    config_class: ClassVar[type[DecoderConfig]]
    call_format: ClassVar[str | None] = None

    def __init__(self) -> None:
        self._path: str | None = None
        self._loaded: LoadedModel | None = None
        self._metadata: ModelMetadata | None = None  # of the model that was loaded last
        self._loads = Loads()
        self.runtime = RuntimeConfig()

    @abstractmethod
    def build_model(self, config: Any, source: Source, runtime: RuntimeConfig, budget: MemoryBudget) -> Decoder:
        """Build the model from its weights; every tensor of the checkpoint is taken or ignored by name."""

    def media_processor(
        self, checkpoint: Checkpoint, config: Any, tokenizer: Tokenizer | None, runtime: RuntimeConfig
    ) -> MediaProcessor | None:
        """Return what reads pictures and videos for the model; None where it takes text alone."""
        return None

    def open_weights(self, checkpoint: Checkpoint) -> Weights:
        """Return the tensors of the model; a subclass may take them from elsewhere than the folder.

        What it takes from there must be part of what ``Weights.digest`` returns too, else ``prefix_cache_path`` finds
        what other weights have computed.
        """
        return checkpoint.weights()

    def initialize(self, path: str | os.PathLike[str] | None = None, *, download: bool = False, **options: Any) -> bool:
        """Set where the model is and how it is to run; ``load_model`` does the work.

        Args:
            path: As ``pio.load`` takes it.
            download: Fetch a repo that is not in the local cache.
            **options: Fields of ``RuntimeConfig``.

        Returns:
            True.

        Raises:
            ConfigError: An option is unknown or its value cannot be used.
            CheckpointError: There is no such model.
        """
        self.runtime = RuntimeConfig.from_options(**options)
        if path is not None:
            self._path, self._metadata = os.fspath(resolve(path, download=download)), None
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
            CancelledError: ``cleanup`` was called meanwhile.
            DeviceError: This Python runs without its global lock.
        """
        require_turns()
        if self._path is None:
            raise ConfigError("there is no path; call initialize(path=...) first, or use pio.load(path)")
        path = self._path

        def work(load: Load) -> None:
            with self._shown(config or self.runtime) as shown:
                self._let_go()
                self.runtime = config or self.runtime
                checkpoint = Checkpoint(path, mapped=self.runtime.mmap)
                registry.choose(checkpoint.config, self.manifest.name)  # refuses another architecture, by name
                with plugin_code(type(self)):
                    model_config = self.config_class.from_checkpoint(checkpoint.config)
                    weights = self.open_weights(checkpoint)
                self._build(Files(checkpoint, model_config, weights, None), shown, load)

        self._loads.run(work)
        return self

    def update(self, **options: Any) -> RuntimeConfig:
        """Change runtime options of a loaded model; requests that run are cancelled, new ones wait for it.

        Nothing changes on an error, nor on Ctrl-C: the model is loaded as it was, from the files that are open already;
        a second Ctrl-C leaves that to the thread that does it.
        Where the machine does not even give that memory any more, the error says so, and ``load_model`` tries again.

        Raises:
            ConfigError: An option is unknown or its value cannot be used; the model goes on as it was.
            OutOfMemoryError: The model does not fit with these options; it is loaded as it was.
            CancelledError: ``cleanup`` was called meanwhile.
        """
        return self._loads.run(lambda load: self._update(load, options))

    def cleanup(self) -> bool:
        """Cancel what runs and give every byte back; more than once does no harm.

        A step that runs is waited for, at most ten seconds; one that takes longer gives the memory back at its end. A
        load or update in another thread ends with a CancelledError.

        Returns:
            True.
        """
        self._loads.give_up()
        self._let_go()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        import asyncio

        await asyncio.to_thread(self.cleanup)  # it waits for the running step, and holds no event loop up

    def __reduce__(self) -> NoReturn:
        raise PioError(
            "a model belongs to its process and can neither be copied nor pickled; pass its path instead, and load it "
            f"in each process: pio.load({self._path!r})"
        )

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
            self._loads.wait()
            loaded = self._loaded
        if loaded is None:
            raise PioError("the model is not loaded; call load_model(), or pio.load again after cleanup()")
        return loaded

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._loaded is not None

    @property
    def manifest(self) -> PluginManifest:
        """The plugin's manifest."""
        return registry.manifest_of(type(self))

    @property
    def metadata(self) -> ModelMetadata:
        """What the plugin and its model are, and the memory they take.

        Before the model is loaded it is what the manifest says; after ``cleanup`` the model's, without memory.
        """
        loaded, last = self._loaded, self._metadata
        if loaded is None and last is not None:
            return replace(last, memory=dict.fromkeys(last.memory, 0))
        return ModelMetadata.of(self.manifest, self._path, loaded)

    def _opened_anew(self, files: Files, *, mapped: bool) -> Files:
        """Return the files with weights that are mapped, or are not; those that are open stay so."""
        checkpoint = Checkpoint(files.checkpoint.path, mapped=mapped)
        checkpoint.config, checkpoint.generation_config = files.checkpoint.config, files.checkpoint.generation_config
        with plugin_code(type(self)):
            return files._replace(checkpoint=checkpoint, weights=self.open_weights(checkpoint))

    def _update(self, load: Load, options: dict[str, Any]) -> RuntimeConfig:
        """Build the model with other options, or as it was."""
        before, config = self.runtime, self.runtime.updated(**options)
        loaded = self._loaded
        if loaded is not None:
            loaded.check_runtime(config)  # also where no value changes: what is asked for by name must be possible
        if config == before or loaded is None:
            self.runtime = config
            return config
        files = Files(loaded.checkpoint, loaded.config, loaded.weights, loaded.prompts)
        wanted = files if config.mmap == before.mmap else self._opened_anew(files, mapped=config.mmap)
        loaded = None  # nothing here may hold the memory of the old model
        with self._shown(config) as shown:
            try:
                self._let_go()
                self.runtime = config
                self._build(wanted, shown, load)
            except BaseException as error:
                self.runtime = before
                if self._loads.wants(load):
                    load.restoring = True
                    self._restore(files, shown, load, error)
                raise
        return config

    def _build(self, files: Files, shown: Progress, load: Load) -> None:
        """Build the model and let others use it, unless ``cleanup`` was called since the load began."""
        checkpoint, config, weights, prompts = files
        packing = shown.counting(f"quantizing to {self.runtime.quantize}", lambda: weights.matrices)
        check = partial(self._loads.check, load)
        with plugin_code(type(self)):
            more = self.build_model, packing, prompts, check, self.media_processor, type(self)

            def make(runtime: RuntimeConfig, whole: bool) -> LoadedModel:
                return LoadedModel(checkpoint, config, weights, runtime, *more, whole)

            loaded = placed(make, self.runtime)
        loaded.prompts.call_format = self.call_format
        self._metadata = ModelMetadata.of(self.manifest, self._path, loaded)
        self._loaded = loaded
        try:
            check()  # afterwards: cleanup() has either seen the model, or is seen here
        except CancelledError:
            self._let_go()
            raise

    def _restore(self, files: Files, shown: Progress, load: Load, error: BaseException) -> None:
        """Build the model as it was; where that fails too, raise an error that says both."""
        link: BaseException | None = error
        while link is not None:
            traceback.clear_frames(link.__traceback__)  # they keep the memory of half a model
            link = link.__cause__ or link.__context__
        try:
            self._let_go()
            self._build(files, shown, load)
        except Exception as second:
            lost = f"it could not be loaded again as it was either ({second}); load_model() tries that once more"
            if isinstance(error, PioError) and not load.left:
                raise type(error)(f"{error}; and {lost}") from second
            load.lost = lost  # Ctrl-C stays what it is

    def _let_go(self) -> None:
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        device = loaded.model.device
        loaded.close()
        del loaded  # and with it the weights, where no request holds it any more
        device.give_back()

    @contextmanager
    def _shown(self, runtime: RuntimeConfig) -> Generator[Progress]:
        """Show progress meanwhile; memory that the system refuses becomes an OutOfMemoryError."""
        doing = f"loading {short_name(self._path or '')}"
        with memory_errors(doing), Progress(runtime.progress, doing) as shown:
            yield shown
