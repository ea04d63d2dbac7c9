"""A picture or a video as a vision tower takes it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from pio import ops
from pio.errors import MediaError
from pio.media.picture import DECODE_LIMIT, Picture
from pio.media.pixels import check_pixels
from pio.media.preprocessor import PreprocessorConfig, Three, VideoPreprocessorConfig, with_budget, with_frames
from pio.media.smart_resize import smart_resize, smart_resize_video
from pio.media.video import Video, open_video, sample_frames, timestamps
from pio.tensor import Tensor

VERSION: Final = 1  # of the steps below: changed with them, so that no cache takes the pixels of older ones


@dataclass(frozen=True, slots=True)
class PreparedMedium:
    """What a vision tower takes; ``pio.ops.image_patches`` cuts it into rows, a few at a time.

    Attributes:
        kind: Whether it is a picture or a video.
        frames: uint8 (frames, height, width, 3), resized; of a picture one frame.
        grid: Time steps, and patches down and across. The last time step may lack frames: the last one is repeated.
        timestamps: Seconds of each time step of a video, the mean of its first and last frame's; none of a picture.
        key: SHA-256 of kind, what the picture was before (mode and size), its pixels now, and the version of all this.
        merge: Patches along a side of the square that becomes a token.
        mean: What is taken from the three channels, from 0 to 1.
        std: What they are divided by then.
    """

    kind: Literal["image", "video"]
    frames: Tensor
    grid: tuple[int, int, int]
    timestamps: tuple[float, ...]
    key: bytes
    merge: int
    mean: Three
    std: Three

    @property
    def tokens(self) -> int:
        """Tokens that it becomes."""
        steps, height, width = self.grid
        return steps * height * width // self.merge**2


def prepare_picture(
    picture: Picture,
    config: PreprocessorConfig,
    *,
    name: str = "image",
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> PreparedMedium:
    """Resize a picture as the model's processor does.

    Args:
        picture: The picture.
        config: What the model's folder says.
        name: What messages call it.
        min_pixels: Of this picture, in the place of the config's: it is made larger where it has fewer.
        max_pixels: Of this picture: it is made smaller where it has more; at most what the config says.

    Raises:
        MediaError: Its shape is one that the model does not take.
        ConfigError: The limits are no numbers of pixels, or the least is above the largest.
    """
    config = with_budget(config, name, min_pixels, max_pixels)
    height, width = picture.pixels.shape[:2]
    check_pixels(name, height, width, DECODE_LIMIT)
    try:
        size = smart_resize(
            height, width, factor=config.factor, min_pixels=config.min_pixels, max_pixels=config.max_pixels
        )
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error
    frames = Tensor.empty((1, *size, 3), "uint8")
    ops.image_resize(picture.pixels, *size, filter=config.filter, out=frames[0])
    grid = 1, size[0] // config.patch_size, size[1] // config.patch_size
    key = _key("image", [picture.mode], (height, width), frames, (), config)
    return PreparedMedium("image", frames, grid, (), key, config.merge_size, config.image_mean, config.image_std)


def prepare_video(
    video: Any,
    config: VideoPreprocessorConfig,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    name: str = "video",
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    **how: Any,
) -> PreparedMedium:
    """Sample the frames of a video once, and resize them, one after the other, as the model's processor does.

    Args:
        video: A ``Video``, or what ``open_video`` takes: a list of pictures, in order, or a file.
        config: What the model's folder says.
        fps: Pictures of a list in a second.
        num_frames: As many frames are sampled, evenly spread; what the config says where None.
        name: What messages call it.
        min_pixels: As in ``prepare_picture``, of all frames together.
        max_pixels: As in ``prepare_picture``, of all frames together.
        **how: As in ``open_picture``: ``decode_limit``, ``max_bytes``, ``background`` and ``allow_remote``.

    Raises:
        MediaError: It has no frames, or only one; frames have different sizes, or are damaged; or their shape is one
            that the model does not take.
        ConfigError: An argument cannot be used, or what decodes files is not installed.
    """
    config = with_frames(with_budget(config, name, min_pixels, max_pixels), name, num_frames)
    with open_video(video, fps=fps, name=name, **how) as opened:
        chosen = sample_frames(opened.count, opened.fps, config, name=name)
        return _prepare_frames(opened, chosen, config, name)


def _prepare_frames(video: Video, chosen: list[int], config: VideoPreprocessorConfig, name: str) -> PreparedMedium:
    frames: Tensor | None = None
    modes: list[str] = []
    before = 0, 0
    for i, picture in enumerate(video.pictures(chosen)):
        height, width = picture.pixels.shape[:2]
        if frames is None:
            before = height, width
            frames = Tensor.empty((len(chosen), *_size(len(chosen), height, width, config, name), 3), "uint8")
        if (height, width) != before:
            raise MediaError(
                f"{name}: frame {chosen[i]} has {width} x {height} pixels, the first one {before[1]} x {before[0]}; "
                "give frames of one size"
            )
        modes.append(picture.mode)
        ops.image_resize(picture.pixels, *frames.shape[1:3], filter=config.filter, out=frames[i])
    if frames is None or len(modes) != len(chosen):
        raise MediaError(f"{name} ends after {len(modes)} of {len(chosen)} frames; it is damaged, get or save it again")
    times = timestamps(chosen, video.fps, config.temporal_patch_size)
    grid = len(times), frames.shape[1] // config.patch_size, frames.shape[2] // config.patch_size
    key = _key("video", modes, before, frames, times, config)
    return PreparedMedium("video", frames, grid, times, key, config.merge_size, config.image_mean, config.image_std)


def _size(count: int, height: int, width: int, config: VideoPreprocessorConfig, name: str) -> tuple[int, int]:
    most = config.max_pixels
    if config.cap_pixels_per_frame:
        # no frame has more than its share, but for what very short videos need
        capped = min(config.max_video_tokens * config.factor**2, most // count)
        most = max(capped, int(config.min_pixels * 1.05)) * count
    try:
        return smart_resize_video(
            count,
            height,
            width,
            temporal=config.temporal_patch_size,
            factor=config.factor,
            min_pixels=config.min_pixels,
            max_pixels=most,
        )
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error


def _key(
    kind: str,
    modes: Iterable[str],
    before: tuple[int, int],
    frames: Tensor,
    times: tuple[float, ...],
    config: PreprocessorConfig,
) -> bytes:
    """Return what tells two media apart, however a model's cache got them."""
    cut = config.patch_size, config.temporal_patch_size, config.merge_size, config.image_mean, config.image_std
    said = (VERSION, kind, sorted(set(modes)), before, frames.shape, times, cut)
    found = hashlib.sha256(repr(said).encode())
    found.update(frames.memoryview())
    return found.digest()
