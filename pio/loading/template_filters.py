"""The filters and tests that a chat template may use, each taking its cost before it works."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import jinja2.filters
import jinja2.tests
from jinja2 import Undefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from pio.loading import template_methods as methods
from pio.loading.template_budget import Budget, TemplateLimit, is_dict, small

if TYPE_CHECKING:
    from pio.loading.template_sandbox import TemplateSandbox

_JINJA: Final[dict[str, Callable[..., Any]]] = dict(jinja2.filters.FILTERS)
_COMPARING: Final = (
    ("==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", "ge", ">=")
    + ("<", "lt", "lessthan", "<=", "le", "in", "lower", "upper")
)  # fmt: skip


class Call(NamedTuple):
    """What a filter works with: the rendering's budget and context."""

    budget: Budget
    context: Context

    @property
    def sandbox(self) -> TemplateSandbox:
        """The environment."""
        return cast("TemplateSandbox", self.context.environment)

    def text(self, value: Any) -> str:
        """Return a value as text; Markup stays Markup, as in Jinja."""
        return value if isinstance(value, str) else self.sandbox.written(self.context, value)


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


def _title(call: Call, value: Any) -> Any:
    text = call.text(value)
    methods.cased(call.budget, text)
    return _JINJA["title"](text)


def _cased(name: str) -> Callable[..., Any]:
    def run(call: Call, value: Any) -> Any:
        text = call.text(value)
        methods.cased(call.budget, text)
        return getattr(text, name)()

    return run


def _trim(call: Call, value: Any, chars: Any = None) -> Any:
    text = call.text(value)
    methods.strip(call.budget, text, chars)
    return text.strip(chars)


def _replace(call: Call, value: Any, old: Any, new: Any, count: Any = None) -> Any:
    text, old, new = (str(call.text(part)) for part in (value, old, new))
    times = -1 if count is None else count
    methods.replace(call.budget, text, old, new, times)
    return text.replace(old, new, times)


def _center(call: Call, value: Any, width: Any = 80) -> Any:
    text = call.text(value)
    methods.pad(call.budget, text, width)
    return text.center(width)


def _indent(call: Call, value: Any, width: Any = 4, first: Any = False, blank: Any = False) -> Any:
    text = call.text(value)
    methods.split_lines(call.budget, text)
    inset = len(width) if isinstance(width, str) else width
    lines = 1 + sum(text.count(end) for end in methods.LINE_ENDS)
    call.budget.text((len(text) + lines * max(0, 1 + inset)) * methods.factor(text, width))
    return _JINJA["indent"](text, width, first, blank)


def _truncate(call: Call, value: Any, *args: Any, **kwargs: Any) -> Any:
    text = call.text(value)
    call.budget.text(2 * len(text))
    return _JINJA["truncate"](call.sandbox, text, *args, **kwargs)


def _format(call: Call, value: Any, *args: Any, **kwargs: Any) -> Any:
    text = call.text(value)
    methods.percent(call.budget, text, call.budget.made(kwargs or args))
    return _JINJA["format"](text, *args, **kwargs)


def _join(call: Call, value: Any, d: Any = "", attribute: Any = None) -> Any:
    items = call.budget.listed(value)
    if attribute is not None:
        items = [_getter(call, attribute, len(items))(item) for item in items]
    parts = [str(call.text(item)) for item in items]
    glue = str(call.text(d))
    methods.join(call.budget, glue, parts)
    return glue.join(parts)


def _tojson(
    call: Call, x: Any, ensure_ascii: Any = False, indent: Any = None, separators: Any = None, sort_keys: Any = False
) -> str:
    size = call.budget.size(x)
    for part in (small(indent, 64, "an indent of"), *(separators or ())):
        if isinstance(part, str) and len(part) > 64:
            raise TemplateLimit("it writes JSON with separators of more than 64 characters")
        size += (size >> 3) * (len(part) if isinstance(part, str) else part or 0)
    call.budget.text((6 if ensure_ascii else 2) * size)
    call.budget.spend(size >> 6)
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _escape(call: Call, value: Any) -> Any:
    text = call.text(value)
    call.budget.text(6 * len(text))
    return _JINJA["escape"](text)


def _safe(call: Call, value: Any) -> Any:
    text = call.text(value)
    call.budget.text(len(text))
    return Markup(text)


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
    items = call.budget.listed(value)
    if attribute is not None:
        items = [_getter(call, attribute, len(items))(item) for item in items]
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
        _attribute_cost(call, (*args, *kwargs.values()), len(items))
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
        _attribute_cost(call, (*args, *kwargs.values()), len(items))
        return iter([call.budget.made(item) for item in _JINJA[name](call.context, items, *args, **kwargs)])

    return run


def _attribute_cost(call: Call, values: tuple[Any, ...], count: int) -> None:
    for value in values:  # any text may be a dotted path, followed for every item
        if isinstance(value, str):
            call.budget.spend(count * (len(value) >> 3))


def _getter(call: Call, attribute: Any, count: int) -> Callable[[Any], Any]:
    _attribute_cost(call, (attribute,), 1)
    return jinja2.filters.make_attrgetter(call.sandbox, attribute)


_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    **{name: _cased(name) for name in ("upper", "lower", "capitalize")},
    **{name: _ordered(name) for name in ("dictsort", "groupby", "max", "min", "sort", "unique")},
    **{name: _chosen(name) for name in ("map", "reject", "rejectattr", "select", "selectattr")},
    **dict.fromkeys(("count", "length"), _plain("count")),
    **dict.fromkeys(("d", "default"), _plain("default")),
    **dict.fromkeys(("e", "escape"), _escape),
    "abs": _plain("abs"),
    "batch": _batch,
    "center": _center,
    "first": _first,
    "float": _float,
    "format": _format,
    "indent": _indent,
    "int": _int,
    "items": _items,
    "join": _join,
    "last": _last,
    "list": _list,
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "safe": _safe,
    "string": Call.text,
    "sum": _sum,
    "title": _title,
    "tojson": _tojson,
    "trim": _trim,
    "truncate": _truncate,
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

    return {name: guarded(run) for name, run in _FILTERS.items()}


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
