"""What a model folder says of how its pictures and videos are prepared, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeVar, cast

from pio.errors import CheckpointError, ConfigError, UnsupportedModelError
from pio.loading.json_file import read_object
from pio.loading.model_file import find, shown

Filter = Literal["bicubic", "bilinear"]
Three = tuple[float, float, float]
C = TypeVar("C", bound="PreprocessorConfig")

_MAX_BYTES: Final = 1 << 20
_LARGEST: Final = 1 << 40  # pixels of a budget
_LEAST: Final = 1e-6  # of a number above zero: what is less may be zero in float32, by which nothing is divided
_FILTERS: Final[dict[int, Filter]] = {2: "bilinear", 3: "bicubic"}  # as Pillow numbers them
_PICTURES, _VIDEOS, _BOTH = "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"
PREPROCESSOR_FILES: Final = (_PICTURES, _VIDEOS, _BOTH)


@dataclass(frozen=True, slots=True)
class PreprocessorConfig:
    """How pictures are prepared; the defaults are those of transformers' ``Qwen2VLImageProcessor``.

    Attributes:
        patch_size: Pixels along a side of a patch.
        temporal_patch_size: Frames in a time step.
        merge_size: Patches along a side of a square that becomes one token.
        min_pixels: Smaller pictures are made larger.
        max_pixels: Larger pictures are made smaller.
        image_mean: Of the three channels, from 0 to 1.
        image_std: Of the three channels.
        filter: How pictures are resized.
    """

    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    image_mean: Three = (0.48145466, 0.4578275, 0.40821073)
    image_std: Three = (0.26862954, 0.26130258, 0.27577711)
    filter: Filter = "bicubic"

    @property
    def factor(self) -> int:
        """Pixels along a side of a square that becomes one token."""
        return self.patch_size * self.merge_size


@dataclass(frozen=True, slots=True)
class VideoPreprocessorConfig(PreprocessorConfig):
    """How videos are prepared; the defaults are those of transformers' ``Qwen3VLVideoProcessor``.

    Attributes:
        min_pixels: Of all frames together.
        max_pixels: Of all frames together.
        fps: Frames that are sampled of each second, unless ``num_frames`` says how many altogether.
        min_frames: As many are sampled at least, where there are so many.
        max_frames: As many are sampled at most.
        num_frames: As many are sampled, however long the video is.
        do_sample_frames: Whether frames are sampled; if not, all are taken.
        cap_pixels_per_frame: Whether no frame has more than ``max_video_tokens`` tokens.
        max_video_tokens: Tokens of a frame, where they are capped.
    """

    patch_size: int = 16
    min_pixels: int = 128 * 32 * 32
    max_pixels: int = 32 * 32 * 768
    image_mean: Three = (0.5, 0.5, 0.5)
    image_std: Three = (0.5, 0.5, 0.5)
    fps: float | None = 2.0
    min_frames: int = 4
    max_frames: int = 768
    num_frames: int | None = None
    do_sample_frames: bool = True
    cap_pixels_per_frame: bool = False
    max_video_tokens: int = 768


def read_picture_config(folder: Path) -> PreprocessorConfig:
    """Return what a model folder says of its pictures.

    Read are ``processor_config.json``, where it has a part ``image_processor``, as transformers 5 writes it, or else
    ``preprocessor_config.json``.

    Raises:
        CheckpointError: There is neither, or a field is damaged.
        UnsupportedModelError: It asks for a step that is not implemented.
    """
    for name, part in ((_BOTH, "image_processor"), (_PICTURES, None)):
        raw = _read(folder, name, part)
        if raw is not None:
            return picture_config(raw, str(folder / name))
    raise CheckpointError(f"{folder} holds no {_PICTURES}, which says how pictures are prepared; download it again")


def read_video_config(folder: Path) -> VideoPreprocessorConfig:
    """Return what a model folder says of its videos: as ``read_picture_config``, of ``video_preprocessor_config.json``.

    Where that is missing, ``preprocessor_config.json`` says what both have in common.
    """
    for name, part in ((_BOTH, "video_processor"), (_VIDEOS, None), (_PICTURES, None)):
        raw = _read(folder, name, part)
        if raw is not None:
            return video_config(raw, str(folder / name))
    raise CheckpointError(f"{folder} holds no {_VIDEOS}, which says how videos are prepared; download it again")


def _read(folder: Path, name: str, part: str | None) -> dict[str, Any] | None:
    path = find(folder, name)
    if path is None:
        return None
    raw = read_object(path, max_bytes=_MAX_BYTES)
    if part is None:
        return raw
    inner = raw.get(part)
    if inner is not None and not isinstance(inner, dict):
        _fail(str(path), part, inner, "an object")
    return cast("dict[str, Any] | None", inner)


def picture_config(raw: Mapping[str, Any], where: str) -> PreprocessorConfig:
    """Return the checked fields of ``preprocessor_config.json``; nulls and missing fields are the class's defaults.

    Raises:
        CheckpointError: A field has the wrong type or value; the message names ``where`` and the field.
        UnsupportedModelError: It asks for a step that is not implemented.
    """
    return _common(PreprocessorConfig(), raw, where)


def video_config(raw: Mapping[str, Any], where: str) -> VideoPreprocessorConfig:
    """Return the checked fields of ``video_preprocessor_config.json``; errors as in ``picture_config``."""
    base = _common(VideoPreprocessorConfig(), raw, where)
    fps, frames = raw.get("fps"), raw.get("num_frames")
    found = replace(
        base,
        fps=_number(where, "fps", fps, least=_LEAST) if fps is not None else None if frames is not None else base.fps,
        num_frames=None if frames is None else _whole(where, "num_frames", frames, 1 << 20),
        min_frames=_whole(where, "min_frames", _given(raw, "min_frames", base.min_frames), 1 << 20),
        max_frames=_whole(where, "max_frames", _given(raw, "max_frames", base.max_frames), 1 << 20),
        max_video_tokens=_whole(where, "max_video_tokens", _given(raw, "max_video_tokens", base.max_video_tokens)),
        do_sample_frames=_flag(where, "do_sample_frames", raw, base.do_sample_frames),
        cap_pixels_per_frame=_flag(where, "cap_pixels_per_frame", raw, base.cap_pixels_per_frame),
    )
    if found.fps is not None and found.num_frames is not None:
        _fail(where, "num_frames", found.num_frames, f"null beside fps {found.fps:g}: only one says how many frames")
    if found.min_frames > found.max_frames:
        _fail(where, "min_frames", found.min_frames, f"at most max_frames, {found.max_frames}")
    return found


def with_budget(config: C, name: str, min_pixels: Any = None, max_pixels: Any = None) -> C:
    """Return a config for one picture or video that a caller said its own limits of.

    What is more than the config's largest number of pixels counts as that; where only one limit is given and passes the
    other, it takes that one along.

    Args:
        config: What the model's folder says.
        name: What messages call the picture.
        min_pixels: Smaller pictures are made larger.
        max_pixels: Larger pictures are made smaller.

    Raises:
        ConfigError: A limit is no number of pixels, or the least is above the largest.
    """
    for key, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)):
        if value is not None and (type(value) is not int or not 1 <= value <= _LARGEST):
            raise ConfigError(f"{name}: {key} is {shown(value)}, expected a whole number from 1 to {_LARGEST}")
    if min_pixels is not None and max_pixels is not None and min_pixels > max_pixels:
        raise ConfigError(f"{name}: min_pixels is {min_pixels}, expected at most max_pixels, {max_pixels}")
    most = min(config.max_pixels if max_pixels is None else max_pixels, config.max_pixels)
    return replace(
        config, min_pixels=min(config.min_pixels if min_pixels is None else min_pixels, most), max_pixels=most
    )


def with_frames(config: VideoPreprocessorConfig, name: str, num_frames: Any = None) -> VideoPreprocessorConfig:
    """Return a config for one video of which a caller said how many frames the model is to see.

    Raises:
        ConfigError: It is no such number, or above the config's ``max_frames``.
    """
    if num_frames is None:
        return config
    least, most = config.temporal_patch_size, max(config.temporal_patch_size, config.max_frames)
    if type(num_frames) is not int or not least <= num_frames <= most:
        raise ConfigError(f"{name}: num_frames is {shown(num_frames)}, expected a whole number from {least} to {most}")
    return replace(config, num_frames=num_frames, fps=None, do_sample_frames=True)


def _common(base: C, raw: Mapping[str, Any], where: str) -> C:
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if not _flag(where, key, raw, True):
            raise UnsupportedModelError(f"{where}: {key} is false; pictures are always resized and normalised here")
    factor = _number(where, "rescale_factor", _given(raw, "rescale_factor", 1 / 255), least=_LEAST)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise UnsupportedModelError(f"{where}: rescale_factor is {factor!r}; only 1/255 is implemented")
    resample = _given(raw, "resample", 3)
    filter = _FILTERS.get(resample) if isinstance(resample, int) else None
    if filter is None:
        raise UnsupportedModelError(f"{where}: resample is {shown(resample)}; 2 and 3 are implemented")
    low, high = _limits(base, raw, where)
    return replace(
        base,
        patch_size=_whole(where, "patch_size", _given(raw, "patch_size", base.patch_size), 1 << 10),
        temporal_patch_size=_whole(
            where, "temporal_patch_size", _given(raw, "temporal_patch_size", base.temporal_patch_size), 1 << 10
        ),
        merge_size=_whole(where, "merge_size", _given(raw, "merge_size", base.merge_size), 1 << 10),
        min_pixels=low,
        max_pixels=high,
        image_mean=_three(where, "image_mean", _given(raw, "image_mean", base.image_mean)),
        image_std=_three(where, "image_std", _given(raw, "image_std", base.image_std), least=_LEAST),
        filter=filter,
    )


def _limits(base: PreprocessorConfig, raw: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Return the smallest and the largest number of pixels; those at the top go before those in ``size``."""
    size = _given(raw, "size", {})
    if not isinstance(size, dict):
        _fail(where, "size", size, "an object with shortest_edge and longest_edge")
    size = cast("dict[str, Any]", size)
    found: list[int] = []
    for top, inner, default in (
        ("min_pixels", "shortest_edge", base.min_pixels),
        ("max_pixels", "longest_edge", base.max_pixels),
    ):
        if size and inner not in size and raw.get(top) is None:
            _fail(where, f"size.{inner}", None, "a number of pixels")
        key = top if raw.get(top) is not None else f"size.{inner}"
        value = raw[top] if raw.get(top) is not None else _given(size, inner, default)
        found.append(_whole(where, key, value, _LARGEST))
    low, high = found
    if low > high:
        _fail(where, "min_pixels (size.shortest_edge)", low, f"at most max_pixels (size.longest_edge), {high}")
    return low, high


def _given(raw: Mapping[str, Any], key: str, default: Any) -> Any:
    value = raw.get(key)
    return default if value is None else value


def _whole(where: str, key: str, value: Any, most: int = _LARGEST) -> int:
    if type(value) is not int or not 1 <= value <= most:
        _fail(where, key, value, f"a whole number from 1 to {most}")
    return value


def _number(where: str, key: str, value: Any, *, least: float = -1e6) -> float:
    if type(value) not in (int, float) or not least <= value <= 1e6:  # which is false of NaN
        _fail(where, key, value, f"a number from {least:g} to 1e+06")
    return float(value)


def _flag(where: str, key: str, raw: Mapping[str, Any], default: bool) -> bool:
    value = _given(raw, key, default)
    if not isinstance(value, bool):
        _fail(where, key, value, "true or false")
    return value


def _three(where: str, key: str, value: Any, *, least: float = -1e6) -> Three:
    numbers = list(cast("Sequence[Any]", value)) if isinstance(value, (list, tuple)) else [value] * 3
    if len(numbers) != 3:
        _fail(where, key, value, "three numbers, of red, green and blue")
    red, green, blue = (_number(where, key, v, least=least) for v in numbers)
    return red, green, blue


def _fail(where: str, key: str, value: Any, expected: str) -> NoReturn:
    raise CheckpointError(
        f"{where}: {key} is {shown(value)}, expected {expected}; correct the field or download the file again"
    )
