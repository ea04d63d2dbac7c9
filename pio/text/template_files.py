"""Which files of a model folder hold its chat templates, and what stands in them."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Final, cast

from pio.errors import CheckpointError
from pio.loading.json_file import parse_object
from pio.loading.model_file import find, listed, read_limited, shown

DEFAULT: Final = "default"
MAX_TEMPLATE_CHARACTERS: Final = 64_000
_MAX_BYTES = 4 * MAX_TEMPLATE_CHARACTERS
_MORE = "additional_chat_templates"

_log = logging.getLogger("pio.text")


def find_templates(folder: Path, config: dict[str, Any]) -> dict[str, str] | None:
    """Return a folder's templates by name, or None where it has none; ``config`` is its ``tokenizer_config.json``.

    ``chat_template.jinja`` wins over ``tokenizer_config.json``, and that over ``chat_template.json``.

    Raises:
        CheckpointError: A file is too large, damaged or not what it should be.
    """
    sources = _jinja_file(folder)
    if sources is None:
        sources = _sources(config.get("chat_template"), folder / "tokenizer_config.json")
    if sources is None:
        file = find(folder, "chat_template.json")
        if file is not None:
            found = parse_object(read_limited(file, _MAX_BYTES), str(file))
            sources = _sources(found.get("chat_template"), file)
    _warn_of_more(folder)
    return sources


def _jinja_file(folder: Path) -> dict[str, str] | None:
    file = find(folder, "chat_template.jinja")
    if file is None:
        return None
    try:
        return {DEFAULT: read_limited(file, _MAX_BYTES).decode("utf-8-sig")}
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8 text (byte {error.start}); download it again") from None


def _sources(value: Any, file: Path) -> dict[str, str] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return {DEFAULT: value}
    found: dict[str, str] = {}
    for item in cast("list[object]", value) if isinstance(value, list) else [cast("object", value)]:
        entry = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        name, source = entry.get("name"), entry.get("template")
        if not isinstance(name, str) or not isinstance(source, str):
            raise CheckpointError(
                f"{file}: chat_template holds {shown(cast('object', item))}; a string or a list of objects with name "
                "and template was expected, download the file again"
            )
        found[name] = source
    return found


def _warn_of_more(folder: Path) -> None:
    """Say that templates in a folder of their own are not read; with tools, transformers takes one of them."""
    names = listed(folder / _MORE) if os.path.isdir(folder / _MORE) else []
    if any(name.endswith(".jinja") for name in names):
        _log.warning(
            "%s: the templates in %s are not read (%s); give the one you want the name chat_template.jinja",
            folder,
            _MORE,
            ", ".join(shown(name) for name in names[:8]),
        )
