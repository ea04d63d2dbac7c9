"""What compiling a schema would cost where that grows out of proportion: known before a compiler begins with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

from pio.errors import ConfigError
from pio.text.reference import target

# Each of these is compared with each: two thousand take a second. The second number is how much slower one pair is.
_PAIRS: Final = {"properties": 1, "anyOf": 1, "oneOf": 1, "allOf": 1, "patternProperties": 200}
MAX_PAIRS: Final = 2_000**2
MAX_PATTERNS: Final = 12  # that hold for one text at once; each doubles the work
MAX_GROUPS: Final = 20_000  # schemas that are looked at together, because they hold for one value

Group = tuple[dict[str, Any], ...]


def check_work(schema: Any) -> None:
    """Refuse a schema that would take long to compile.

    Args:
        schema: Plain data, of bounded size and depth.

    Raises:
        ConfigError: The message names the keyword of which there is too much.
    """
    pairs = dict.fromkeys(_PAIRS, 0)
    for found in schemas_in(schema):
        for keyword, slower in _PAIRS.items():
            inner = found.get(keyword)
            if isinstance(inner, (dict, list)):
                pairs[keyword] += slower * len(cast("list[Any]", inner)) ** 2
    for keyword, cost in pairs.items():
        if cost > MAX_PAIRS:
            raise ConfigError(
                f"response_format: the schema is too large: {keyword} has too many parts, which are compared with each "
                "other; give fewer"
            )
    _check_patterns(schema)


def schemas_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every dict in plain data."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            pairs = cast("dict[str, Any]", found)
            yield pairs
            left += pairs.values()
        elif isinstance(found, list):
            left += cast("list[Any]", found)


def _check_patterns(root: Any) -> None:
    """Refuse too many patterns for one text; what holds for a value is found by allOf and $ref, and by alternatives."""
    if not isinstance(root, dict):
        return
    left: list[Group] = [(cast("dict[str, Any]", root),)]
    seen: set[frozenset[int]] = set()
    while left:
        group = _holding_with(left.pop(), root)
        key = frozenset(map(id, group))
        if key in seen:
            continue
        seen.add(key)
        if len(seen) > MAX_GROUPS:
            raise ConfigError("response_format: the schema is too large, for too much of it holds at once")
        if sum("pattern" in schema for schema in group) > MAX_PATTERNS:
            raise ConfigError(
                f"response_format: the schema is too large: pattern stands more than {MAX_PATTERNS} times for one "
                "text; join some into one"
            )
        left += _next_to(group)


def _holding_with(group: Group, root: Any) -> Group:
    """All that holds for the same value."""
    found: dict[int, dict[str, Any]] = {}
    left: list[Any] = list(group)
    while left:
        schema = left.pop()
        if not isinstance(schema, dict) or id(cast("object", schema)) in found:
            continue
        fields = cast("dict[str, Any]", schema)
        found[id(fields)] = fields
        every = fields.get("allOf")
        left += cast("list[Any]", every) if isinstance(every, list) else []
        left.append(target(fields.get("$ref"), root))
    return tuple(found.values())


def _next_to(group: Group) -> Iterator[Group]:
    """The group with each of its next alternatives, and what holds for each part of its value."""
    parts: dict[str, list[dict[str, Any]]] = {}
    present = {id(schema) for schema in group}
    for branch in next(_open_alternatives(group, present), ()):
        yield (*group, branch)
    for schema in group:
        for name, inner in _parts_of(schema):
            parts.setdefault(name, []).append(inner)
    yield from map(tuple, parts.values())


def _open_alternatives(group: Group, present: set[int]) -> Iterator[list[dict[str, Any]]]:
    """Yield the alternatives of which none is in the group."""
    for schema in group:
        for keyword in ("anyOf", "oneOf"):
            given = schema.get(keyword)
            branches = cast("list[Any]", given) if isinstance(given, list) else []
            found = [cast("dict[str, Any]", branch) for branch in branches if isinstance(branch, dict)]
            if found and not present & {id(branch) for branch in found}:
                yield found


def _parts_of(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for keyword in ("properties", "patternProperties"):
        named = schema.get(keyword)
        for name, inner in cast("dict[str, Any]", named).items() if isinstance(named, dict) else ():
            if isinstance(inner, dict):
                yield f"{keyword}/{name}", inner
    for keyword in ("items", "additionalProperties", "additionalItems"):
        inner = schema.get(keyword)
        if isinstance(inner, dict):
            yield keyword, inner
    listed = schema.get("prefixItems")
    for index, inner in enumerate(cast("list[Any]", listed) if isinstance(listed, list) else ()):
        if isinstance(inner, dict):
            yield f"prefixItems/{index}", inner
