"""Pictures and videos of a prompt: how they are sized, and which tokens stand for them where."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pio.config.runtime import RuntimeConfig
from pio.errors import CapacityError, CheckpointError, ConfigError
from pio.loading.checkpoint import Checkpoint
from pio.loading.model_file import find
from pio.media.picture import open_picture
from pio.media.prepared import PreparedMedium, prepare_picture, prepare_video
from pio.media.preprocessor import PREPROCESSOR_FILES, PreprocessorConfig, read_picture_config, read_video_config
from pio.models.qwen3_vl_2b_instruct.config import Qwen3VLConfig
from pio.models.qwen3_vl_2b_instruct.seen_prompt import SeenPrompt
from pio.plugin.media_parts import Kind, MediaSource
from pio.text.encoded_prompt import EncodedPrompt
from pio.text.tokenizer import Tokenizer

READ: Final[Mapping[Kind, Callable[[Path], PreprocessorConfig]]] = {
    "image": read_picture_config,
    "video": read_video_config,
}


class VisionProcessor:
    """Reads what is to be seen, and writes the tokens that stand for it.

    Attributes:
        modalities: What it takes beside text.
        marks: Tokens that stand for what is seen, or around it, as the tokenizer has them.
        mark_ids: Their ids.
    """

    def __init__(
        self, checkpoint: Checkpoint, config: Qwen3VLConfig, tokenizer: Tokenizer | None, runtime: RuntimeConfig
    ) -> None:
        """Read how the folder wants pictures.

        Raises:
            CheckpointError: A file is damaged, or contradicts config.json.
        """
        self._config, self._tokenizer, self._runtime = config, tokenizer, runtime
        self.modalities: Collection[str] = ("image", "video")
        self.mark_ids = config.marks
        self.marks = frozenset(tokenizer.decode([token]) for token in self.mark_ids) if tokenizer else frozenset[str]()
        self._folder, self._configs = checkpoint.path, dict[Kind, Any]()
        for kind in READ:
            if any(find(checkpoint.path, name) for name in PREPROCESSOR_FILES):  # else the first picture is refused
                self._configs[kind] = self._read(kind)

    def prepare(self, source: MediaSource) -> PreparedMedium:
        """Read a picture or a video and bring it to the size in which the model sees it; once, if it comes again.

        Raises:
            MediaError: It cannot be read.
            ConfigError: It is of no known kind.
        """
        if isinstance(source.value, PreparedMedium) and source.value.kind == source.kind:
            return source.value
        options: Any = {"background": self._runtime.background, "allow_remote": self._runtime.allow_remote}
        config, name = self._config_of(source.kind), source.name
        if source.kind == "video":
            return prepare_video(source.value, config, name=name, **source.settings, **options)
        picture = open_picture(source.value, name=name, **options)
        return prepare_picture(picture, config, name=name, **source.settings)

    def place(self, ids: Sequence[int], sources: Sequence[MediaSource], most: int) -> EncodedPrompt:
        """Return a prompt with as many tokens for each medium as it has, in the place of its mark.

        Raises:
            ConfigError: There are more or fewer marks, or a medium is of no known kind.
            MediaError: One cannot be read.
            CapacityError: The prompt becomes longer than ``most`` tokens.
        """
        try:
            given = array("i", ids)
        except (TypeError, OverflowError):  # no token ids: whoever takes the prompt says which
            return EncodedPrompt(ids)
        kinds: dict[int, Kind] = {self._config.image_token_id: "image", self._config.video_token_id: "video"}
        waiting = {kind: iter([s for s in sources if s.kind == kind]) for kind in kinds.values()}
        for token, kind in kinds.items():
            marked, brought = given.count(token), sum(source.kind == kind for source in sources)
            if marked != brought:
                raise ConfigError(
                    f"prompt: it has {marked} marks of {kind}s and brings {brought}; give one {kind} for each mark, "
                    "and marks through messages, whose texts cannot hold any"
                )
        prompt, begin = SeenPrompt(), 0
        for at in [i for i, token in enumerate(given) if token in kinds] if sources else ():
            prompt.write(given[begin:at])
            self._place(prompt, self.prepare(next(waiting[kinds[given[at]]])), given[at])
            begin = at + 1
            if prompt.length + len(given) - begin > most:
                raise CapacityError(
                    f"prompt: with {prompt.seen} tokens of pictures it is longer than the context, {most} tokens; give "
                    "fewer or smaller pictures, fewer max_pixels, or a longer context_length"
                )
        prompt.write(given[begin:])
        return prompt.encoded()

    def updated(self, runtime: RuntimeConfig) -> VisionProcessor:
        """Return a processor of the same folder, which is not read again, for other options."""
        found = copy(self)
        found._runtime = runtime
        return found

    def _place(self, prompt: SeenPrompt, medium: PreparedMedium, token: int) -> None:
        """Write the tokens of a medium; each moment of a video stands behind its time."""
        c, (_, height, width) = self._config, medium.grid
        size = height // c.vision.spatial_merge_size, width // c.vision.spatial_merge_size
        if medium.kind == "image":
            prompt.see(medium, [prompt.look(token, *size)])
            return
        places: list[int] = []
        for time in medium.timestamps:
            prompt.write([*self._time(time), c.vision_start_token_id])
            places.append(prompt.look(token, *size))
            prompt.write([c.vision_end_token_id])
        prompt.see(medium, places)

    def _time(self, seconds: float) -> list[int]:
        if self._tokenizer is None:
            raise ConfigError(
                "video: the times of its frames are text, and this folder has no tokenizer; add its files"
            )
        return self._tokenizer.encode(f"<{seconds:.1f} seconds>", add_special_tokens=False)

    def _config_of(self, kind: Kind) -> Any:
        """Return how pictures or videos are prepared, with as many pixels as the options allow."""
        if kind not in self._configs:
            self._configs[kind] = self._read(kind)
        config, most = self._configs[kind], self._runtime.max_pixels
        if most is None and kind == "image":  # a picture that leaves little of the context for anything else is no use
            pixels = (self._config.vision.patch_size * self._config.vision.spatial_merge_size) ** 2
            most = min(config.max_pixels, max(config.min_pixels, self._runtime.context_length // 4 * pixels))
        if most is None:
            return config
        return replace(config, max_pixels=most, min_pixels=min(most, config.min_pixels))

    def _read(self, kind: Kind) -> PreprocessorConfig:
        """Read how the folder has pictures or videos prepared; refuse what is not for these weights."""
        config, vision = READ[kind](self._folder), self._config.vision
        for name, given, expected in (
            ("patch_size", config.patch_size, vision.patch_size),
            ("temporal_patch_size", config.temporal_patch_size, vision.temporal_patch_size),
            ("merge_size", config.merge_size, vision.spatial_merge_size),
        ):
            if given != expected:
                raise CheckpointError(
                    f"{self._folder}: {name} of {kind}s is {given}, and the weights are for {expected}; the files do "
                    "not belong together, download the folder again"
                )
        return config
