"""Pictures and videos of a prompt: how they are sized, and which tokens stand for them where."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pio.config.runtime import RuntimeConfig
from pio.errors import CheckpointError, ConfigError
from pio.loading.checkpoint import Checkpoint
from pio.loading.model_file import find
from pio.media.picture import open_picture
from pio.media.prepared import PreparedMedium, prepare_picture, prepare_video
from pio.media.preprocessor import PREPROCESSOR_FILES, PreprocessorConfig, read_picture_config, read_video_config
from pio.models.qwen3_vl_2b_instruct.config import Qwen3VLConfig
from pio.plugin.media_parts import Kind, MediaSource
from pio.text.encoded_prompt import EncodedPrompt, PlacedMedium, PromptPositions
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
                self._config_of(kind)

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
        return prepare_picture(open_picture(source.value, name=name, **options), config, name=name)

    def place(self, ids: Sequence[int], media: Sequence[PreparedMedium]) -> EncodedPrompt:
        """Return a prompt with as many tokens for each medium as it has, in the place of its mark.

        Raises:
            ConfigError: There are more or fewer marks.
        """
        c, prompt = self._config, _Prompt()
        kinds = {c.image_token_id: "image", c.video_token_id: "video"}
        waiting = {kind: [medium for medium in media if medium.kind == kind] for kind in kinds.values()}
        for kind, token in (("image", c.image_token_id), ("video", c.video_token_id)):
            marked = sum(1 for found in ids if found == token)
            if marked != len(waiting[kind]):
                raise ConfigError(
                    f"prompt: it has {marked} marks of {kind}s and brings {len(waiting[kind])}; give one {kind} for "
                    "each mark, and marks through messages, whose texts cannot hold any"
                )
        iterators = {kind: iter(found) for kind, found in waiting.items()}
        for token in ids:
            kind = kinds.get(token)
            if kind is None:
                prompt.write([token])
            else:
                self._place(prompt, next(iterators[kind]), token)
        return prompt.encoded()

    def _place(self, prompt: _Prompt, medium: PreparedMedium, token: int) -> None:
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
        """Return how pictures or videos are prepared; refuse what is not for these weights."""
        found = self._configs.get(kind)
        if found is not None:
            return found
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
        most = self._runtime.max_pixels
        if most is not None:
            config = replace(config, max_pixels=min(most, config.max_pixels), min_pixels=min(most, config.min_pixels))
        self._configs[kind] = config
        return config


class _Prompt:
    """A prompt in the making: its tokens, where they stand on three axes, and what some of them show."""

    def __init__(self) -> None:
        self._ids = array("i")
        self._axes = tuple(array("i") for _ in range(3))  # time, height, width
        self._next = 0  # the position of what comes next
        self._media: list[PlacedMedium] = []

    def write(self, ids: Sequence[int]) -> None:
        """Add text: each token is one position further on all axes."""
        for axis in self._axes:
            axis.extend(range(self._next, self._next + len(ids)))
        self._ids.extend(ids)
        self._next += len(ids)

    def look(self, token: int, height: int, width: int) -> int:
        """Add the tokens of a picture, which stand at one time in rows and columns; return the first one's number."""
        first, (time, rows, columns) = len(self._ids), self._axes
        self._ids.extend([token] * (height * width))
        time.extend([self._next] * (height * width))
        rows.extend([self._next + y for y in range(height) for _ in range(width)])
        columns.extend([self._next + x for _ in range(height) for x in range(width)])
        self._next += max(height, width)
        return first

    def see(self, medium: PreparedMedium, places: Sequence[int]) -> None:
        """Note what the tokens from these places on show."""
        self._media.append(PlacedMedium(medium, medium.key, tuple(places), medium.tokens))

    def encoded(self) -> EncodedPrompt:
        """Return the prompt."""
        if not self._media:
            return EncodedPrompt(self._ids)
        positions = PromptPositions(self._axes, self._next - len(self._ids))
        return EncodedPrompt(self._ids, media=self._media, positions=positions)
