"""The filters and tests that a chat template may use, each taking its cost before it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import jinja2.filters
import jinja2.tests
from jinja2 import Undefined, pass_context
from jinja2.runtime import Context

from pio.text.template import methods
from pio.text.template.budget import Budget, is_dict, small
from pio.text.template.call import Call, unavailable
from pio.text.template.text_filters import TEXT_FILTERS

_JINJA: Final[dict[str, Callable[..., Any]]] = dict(jinja2.filters.FILTERS)
_COMPARING: Final = (
    ("==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", "ge", ">=")
    + ("<", "lt", "lessthan", "<=", "le", "in", "lower", "upper")
)  # fmt: skip


def _plain(name: str) -> Callable[..., Any]:
    """Filters that look at no item and make nothing large."""

    def run(call: Call, *args: Any, **kwargs: Any) -> Any:
        return _JINJA[name](*args, **kwargs)

    return run


def _first(call: Call, value: Any) -> Any:
    return jinja2.filters.sync_do_first(call.sandbox, value)


def _last(call: Call, value: Any) -> Any:
    return jinja2.filters.do_last(call.sandbox, value)


def _list(call: Call, value: Any) -> list[Any]:
    return call.budget.listed(value)


def _items(call: Call, value: Any) -> Any:
    if isinstance(value, Undefined):
        return iter(())
    if not isinstance(value, Mapping):
        raise TypeError("Can only get item pairs from a mapping.")
    return iter(call.budget.listed(cast("Mapping[Any, Any]", value).items()))


def _round(call: Call, value: Any, precision: Any = 0, method: Any = "common") -> Any:
    return _JINJA["round"](value, small(precision, 100, "a precision of"), method)


def _int(call: Call, value: Any, default: Any = 0, base: Any = 10) -> Any:
    call.budget.walk(value)
    if isinstance(value, str) and len(value) > 4000:
        return default
    return _JINJA["int"](value, default, base)


def _float(call: Call, value: Any, default: Any = 0.0) -> Any:
    call.budget.walk(value)
    return _JINJA["float"](value, default)


def _sum(call: Call, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    items = call.picked(call.budget.listed(value), attribute)
    for item in (start, *items):
        if not isinstance(item, (int, float)):
            raise TypeError(f"sum adds numbers, found {type(item).__name__}")
    return sum(items, start)


def _reverse(call: Call, value: Any) -> Any:
    if isinstance(value, str):
        call.budget.text(len(value))
        return value[::-1]
    return iter(call.budget.listed(value)[::-1])


def _batch(call: Call, value: Any, linecount: Any, fill_with: Any = None) -> Any:
    items = call.budget.listed(value)
    call.budget.items(16 * len(items) + small(linecount, 100_000, "a batch of"))
    return iter([call.budget.made(batch) for batch in _JINJA["batch"](items, linecount, fill_with)])


def _ordered(name: str) -> Callable[..., Any]:
    """Sorting filters: as many comparisons an item as the count has bits, each at most as dear as the items."""

    def run(call: Call, value: Any, *args: Any, **kwargs: Any) -> Any:
        items: Any = value if is_dict(value) else call.budget.listed(value)
        call.paths((*args, *kwargs.values()), len(items))
        call.budget.spend(len(items).bit_length() * (len(items) + (call.budget.size(items) >> 5)))
        given = (items,) if name == "dictsort" else (call.sandbox, items)
        found: Any = _JINJA[name](*given, *args, **kwargs)
        if name in ("min", "max"):
            return found
        listed = call.budget.listed(found)
        for item in listed:
            call.budget.made(item)
        return iter(listed) if name == "unique" else listed

    return run


def _chosen(name: str) -> Callable[..., Any]:
    """Filters that apply a filter, a test or an attribute to each item; what they apply takes its own cost."""

    def run(call: Call, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not value:
            return iter(())
        items = call.budget.listed(value)
        call.budget.spend(2 * len(items))
        call.paths((*args, *kwargs.values()), len(items))
        return iter([call.budget.made(item) for item in _JINJA[name](call.context, items, *args, **kwargs)])

    return run


def _slice(call: Call, value: Any, slices: Any, fill_with: Any = None) -> Any:
    items = call.budget.listed(value)
    call.budget.items(16 * (len(items) + small(slices, 100_000, "slices to the number of")))
    return iter([call.budget.made(part) for part in jinja2.filters.sync_do_slice(items, slices, fill_with)])


def _attribute(call: Call, value: Any, name: Any) -> Any:
    call.budget.walk(name)
    return _JINJA["attr"](call.sandbox, value, str(call.text(name)))


UNAVAILABLE: Final = {
    "random": "the same conversation must give the same prompt",
    "urlize": "it makes links for web pages",
}
_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    **TEXT_FILTERS,
    **{name: _ordered(name) for name in ("dictsort", "groupby", "max", "min", "sort", "unique")},
    **{name: _chosen(name) for name in ("map", "reject", "rejectattr", "select", "selectattr")},
    **dict.fromkeys(("count", "length"), _plain("count")),
    **dict.fromkeys(("d", "default"), _plain("default")),
    "abs": _plain("abs"),
    "attr": _attribute,
    "batch": _batch,
    "first": _first,
    "float": _float,
    "int": _int,
    "items": _items,
    "last": _last,
    "list": _list,
    "reverse": _reverse,
    "round": _round,
    "slice": _slice,
    "sum": _sum,
}


def filters(budget_of: Callable[[Context], Budget]) -> dict[str, Callable[..., Any]]:
    """Return the filters by name, as Jinja calls them."""

    def guarded(run: Callable[..., Any]) -> Callable[..., Any]:
        @pass_context  # as a rule Jinja evaluates filters of constants while it compiles, but not these
        def guard(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
            budget = budget_of(context)
            budget.spend(2)
            for given in (value, *args, *kwargs.values()):
                budget.size(given)
            return budget.made(run(Call(budget, context), value, *args, **kwargs))

        return guard

    refused = {name: unavailable(f"the filter {name}", reason) for name, reason in UNAVAILABLE.items()}
    return {name: guarded(run) for name, run in (_FILTERS | refused).items()}


def tests(budget_of: Callable[[Context], Budget]) -> dict[str, Callable[..., Any]]:
    """Return the tests by name; those that look into their arguments take a cost."""
    found: dict[str, Callable[..., Any]] = dict(jinja2.tests.TESTS)

    def guarded(run: Callable[..., Any]) -> Callable[..., Any]:
        @pass_context
        def guard(context: Context, *args: Any) -> Any:
            budget = budget_of(context)
            budget.spend(1)
            if len(args) == 2 and isinstance(args[0], str) and isinstance(args[1], str):
                methods.find(budget, args[1], args[0])
            budget.walk(*args)
            return run(*args)

        return guard

    return found | {name: guarded(found[name]) for name in _COMPARING}
