"""The filters of text that a chat template may use, each taking its cost before it works."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import jinja2.filters
from markupsafe import Markup

from pio.text.template import methods
from pio.text.template.budget import TemplateLimit, small
from pio.text.template.call import Call

_JINJA: Final[dict[str, Callable[..., Any]]] = dict(jinja2.filters.FILTERS)
_QUOTED = 12  # characters that one can become in a URL


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
    parts = [str(call.text(item)) for item in call.picked(items, attribute)]
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


def _word_count(call: Call, value: Any) -> int:
    text = call.text(value)
    methods.split(call.budget, text)
    return _JINJA["wordcount"](text)


def _word_wrap(
    call: Call,
    value: Any,
    width: Any = 79,
    break_long_words: Any = True,
    wrapstring: Any = None,
    break_on_hyphens: Any = True,
) -> str:
    text = call.text(value)
    between = "\n" if wrapstring is None else str(call.text(wrapstring))
    methods.split_lines(call.budget, text)
    columns = max(1, width) if isinstance(width, int) else 79
    longest = max(map(len, text.split()), default=0)
    call.budget.spend(len(text) + (longest * longest // columns >> 10))
    lines = 2 * len(text) // columns + sum(text.count(end) for end in methods.LINE_ENDS) + 1
    call.budget.text(64 * len(text) + lines * len(between))  # every word is an object for a while
    return _JINJA["wordwrap"](call.sandbox, text, width, break_long_words, between, break_on_hyphens)


def _strip_tags(call: Call, value: Any) -> str:
    text = call.text(value)
    methods.split(call.budget, text)
    return _JINJA["striptags"](text)


def _url_encode(call: Call, value: Any) -> str:
    size = call.budget.size(value)
    call.budget.text(_QUOTED * size)
    call.budget.spend(size >> 4)
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return _JINJA["urlencode"](call.text(value))
    pairs: list[Any] = call.budget.listed(cast("dict[Any, Any]", value).items() if isinstance(value, dict) else value)
    texts = [tuple(call.text(part) for part in pair) for pair in pairs]
    return _JINJA["urlencode"](texts)


def _xml_attributes(call: Call, value: Any, autospace: Any = True) -> str:
    if not isinstance(value, Mapping):
        raise TypeError("xmlattr writes a dict")
    call.budget.text(10 * methods.ESCAPED * call.budget.size(cast("object", value)))
    return _JINJA["xmlattr"](call.context.eval_ctx, cast("Mapping[str, Any]", value), autospace)


def _force_escape(call: Call, value: Any) -> Any:
    text = str(call.text(value))
    call.budget.text(methods.ESCAPED * len(text))
    return _JINJA["forceescape"](text)


def _pretty(call: Call, value: Any) -> str:
    text = call.text(value)  # refuses what is no data
    call.budget.text(10 * len(text))
    call.budget.spend(call.budget.size(value) >> 3)
    return _JINJA["pprint"](value)


def _file_size(call: Call, value: Any, binary: Any = False) -> str:
    call.budget.walk(value)
    return _JINJA["filesizeformat"](value, binary)


TEXT_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    **{name: _cased(name) for name in ("upper", "lower", "capitalize")},
    **dict.fromkeys(("e", "escape"), _escape),
    "center": _center,
    "filesizeformat": _file_size,
    "forceescape": _force_escape,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "pprint": _pretty,
    "replace": _replace,
    "safe": _safe,
    "string": Call.text,
    "striptags": _strip_tags,
    "title": _title,
    "tojson": _tojson,
    "trim": _trim,
    "truncate": _truncate,
    "urlencode": _url_encode,
    "wordcount": _word_count,
    "wordwrap": _word_wrap,
    "xmlattr": _xml_attributes,
}
