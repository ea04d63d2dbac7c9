"""References within a JSON schema."""

from __future__ import annotations

from typing import Any, cast


def target(reference: Any, root: Any) -> Any:
    """Return what a reference within a schema names, or None.

    Args:
        reference: A JSON pointer behind ``#``; whatever else stands there names nothing.
        root: The schema.
    """
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list):
            items, place = cast("list[Any]", found), int(name) if name.isdecimal() and len(name) < 10 else -1
            found = items[place] if 0 <= place < len(items) else None
        else:
            found = cast("dict[str, Any]", found).get(name) if isinstance(found, dict) else None
    return found
