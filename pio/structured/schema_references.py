"""How deep a schema is where its references are followed: compiling goes down as deep, on the stack of a thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

from pio.errors import ConfigError
from pio.text.reference import target

MAX_LEVELS: Final = 150  # one takes 5 kB of stack, and a thread may have 1 MB


def check_references(schema: Any) -> None:
    """Refuse a schema that is too deep with its references.

    What refers to itself counts once, and what refers to each other counts together: nobody knows in which order a
    compiler looks at it.

    Args:
        schema: Plain data, of bounded size and depth.

    Raises:
        ConfigError: It is.
    """
    levels, graph = _graph(schema)
    deepest: dict[str, int] = {}
    for together in _components(graph):  # what is referred to comes before what refers to it
        below = (deepest[other] for name in together for other in graph[name] if other not in together)
        total = sum(levels[name] for name in together) + max(below, default=0)
        if total > MAX_LEVELS:
            raise ConfigError(
                f"response_format: the schema is too large: $ref leads from one to the next over {total} levels, "
                f"at most {MAX_LEVELS} can be used; give a flatter one"
            )
        deepest.update(dict.fromkeys(together, total))


def _graph(schema: Any) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Of each part that is referred to, and of the whole, how deep it is itself and to what it refers."""
    levels: dict[str, int] = {}
    graph: dict[str, list[str]] = {}
    left = ["#"]
    while left:
        name = left.pop()
        if name in graph:
            continue
        levels[name], found = 0, dict[str, None]()
        for value, depth in _values(target(name, schema)):
            levels[name] = max(levels[name], depth)
            reference = cast("dict[str, Any]", value).get("$ref") if isinstance(value, dict) else None
            if isinstance(reference, str):
                found[reference] = None
        graph[name] = list(found)
        left += found
    return levels, graph


def _values(schema: Any) -> Iterator[tuple[Any, int]]:
    """Yield what compiling one part looks at, and how deep it lies; not definitions, which are looked at by name."""
    left: list[tuple[Any, int]] = [(schema, 1)]
    while left:
        value, depth = left.pop()
        yield value, depth
        if isinstance(value, dict):
            pairs = cast("dict[str, Any]", value)
            left += ((inner, depth + 1) for key, inner in pairs.items() if key not in ("$defs", "definitions"))
        elif isinstance(value, list):
            left += ((inner, depth) for inner in cast("list[Any]", value))


def _components(graph: dict[str, list[str]]) -> Iterator[set[str]]:
    """Yield parts that refer to each other, by Tarjan's algorithm; it keeps a stack of its own."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    for root in graph:
        work: list[tuple[str, Iterator[str]]] = []
        if root not in index:
            index[root] = lowest[root] = len(index)
            path.append(root)
            on_path.add(root)
            work.append((root, iter(graph[root])))
        while work:
            name, others = work[-1]
            other = next(others, None)
            if other is None:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[name])
                if lowest[name] == index[name]:
                    cut = path.index(name)
                    together = {*path[cut:]}
                    del path[cut:]
                    on_path -= together
                    yield together
            elif other not in index:
                index[other] = lowest[other] = len(index)
                path.append(other)
                on_path.add(other)
                work.append((other, iter(graph[other])))
            elif other in on_path:
                lowest[name] = min(lowest[name], index[other])
