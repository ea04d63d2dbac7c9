"""Pictures and videos that people name on a command line or drop into a conversation: found, and read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import unquote, urlsplit

from pio.errors import ConfigError
from pio.system import HERE

if TYPE_CHECKING:
    from pio.plugin import TextModelPlugin
    from pio.plugin.media_parts import Kind
    from pio.plugin.media_processor import MediaProcessor

PICTURES: Final = frozenset(".bmp .gif .jpeg .jpg .png .ppm .tif .tiff .webp".split())
VIDEOS: Final = frozenset(".avi .m4v .mkv .mov .mp4 .mpeg .mpg .webm".split())
LONGEST: Final = 8192  # characters of a line in which a path is looked for
_ADDRESS: Final = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)

Part: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture or a video, as somebody named it.

    Attributes:
        kind: What it is.
        value: A path or an address; the paths of its pictures where a folder is the video.
        name: What messages call it.
        fps: Pictures of such a folder in a second.
    """

    kind: Kind
    value: str | list[str]
    name: str
    fps: float | None = None

    def part(self, model: TextModelPlugin) -> Part:
        """Return it as a part of a message, read and sized as the model sees it.

        Raises:
            MediaError: It cannot be read.
            ConfigError: The model reads no such thing.
        """
        from pio.plugin.media_parts import MediaSource

        processor = cast("MediaProcessor", model.loaded.prompts.media)
        settings = {} if self.fps is None else {"fps": self.fps}
        return {
            "type": self.kind,
            self.kind: processor.prepare(MediaSource(self.kind, self.value, self.name, settings)),
        }


def find_picture(given: str, name: str = "--image") -> Seen:
    """Return the picture at a path or an address.

    Raises:
        ConfigError: There is no such file; the message begins with ``name``.
    """
    return Seen("image", _file(given, name), name)


def find_video(given: str, fps: float | None = None, name: str = "--video") -> Seen:
    """Return the video at a path or an address; a folder is the pictures in it, in the order of their names.

    Raises:
        ConfigError: There is no such file, or ``fps`` is missing for a folder or given for a file.
    """
    path = Path(given).expanduser()
    if not path.is_dir():
        if fps is not None:
            raise ConfigError(f"--fps is for folders of pictures; {name} {given} is a file, which says it itself")
        return Seen("video", _file(given, name), name)
    frames = sorted(str(frame) for frame in path.iterdir() if frame.suffix.lower() in PICTURES)
    if not frames:
        raise ConfigError(f"{name} {given}: no pictures are in this folder; give one with the frames of a video")
    if fps is None:
        raise ConfigError(f"{name} {given} is a folder of pictures; say with --fps how many of them a second has")
    return Seen("video", frames, name, fps)


def require_sight(name: str, kinds: Sequence[Kind], plugin: str | None = None) -> None:
    """Refuse pictures for a model that reads text alone before anything of it is loaded.

    Raises:
        ConfigError: The model's plugin takes nothing of one of these kinds.
        PioError: There is no such model, or no plugin for it.
    """
    from pio.loading.checkpoint import Checkpoint
    from pio.plugin import registry
    from pio.plugin.loader import find

    check_sight(name, kinds, registry.choose(Checkpoint(find(name)).config, plugin)[0].modalities)


def check_sight(name: str, kinds: Sequence[Kind], takes: Sequence[str]) -> None:
    """Raise a ConfigError where a model that takes these modalities takes nothing of one of the kinds."""
    blind = [kind for kind in kinds if kind not in takes]
    if blind:
        found = "text alone" if [*takes] == ["text"] else f"{' and '.join(takes)}, no {blind[0]}"
        raise ConfigError(f"{name} reads {found}; choose a model that sees, pio models lists them")


def dropped(line: str) -> tuple[str, str] | None:
    """Return what stands before the path at a line's end, and the path, where it is one of a picture or a video.

    Terminals paste what is dropped into them as it is, in quotes, with backslashes before spaces, or as an address of
    a file.
    """
    line = line.strip()
    if len(line) > LONGEST or "\n" in line or Path(line.rstrip("'\"")).suffix.lower() not in PICTURES | VIDEOS:
        return None
    for begin in (0, *(found.end() for found in re.finditer(r"\s+", line))):
        for path in spellings(line[begin:]):
            if _is_file(path):
                return line[:begin].strip(), path
    return None


def spellings(text: str) -> Iterator[str]:
    """Yield the paths that a text may stand for, which a person typed or a terminal pasted."""
    text = text.strip()
    yield text
    if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"":
        yield text[1:-1]
        yield text[1:-1].replace("'\\''", "'")
    if "\\" in text and os.sep == "/":
        yield re.sub(r"\\(.)", r"\1", text)
    if text.lower().startswith("file://"):
        path = unquote(urlsplit(text).path)
        yield (
            path[1:] if os.path.splitdrive(path[1:])[0] else path
        )  # /C:/folder is C:/folder, where drives have letters
    if text.startswith("~"):
        yield os.path.expanduser(text)


def kind_of(path: str) -> Kind:
    """Return what a file is, by its name."""
    return "video" if Path(path).suffix.lower() in VIDEOS else "image"


def _file(given: str, name: str) -> str:
    if _ADDRESS.match(given):
        return given
    found = next(filter(_is_file, spellings(given)), None)
    if found is None:
        raise ConfigError(f"{name} {HERE.quote(given)}: there is no such file; correct the path")
    return found


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:  # a NUL in it
        return False
