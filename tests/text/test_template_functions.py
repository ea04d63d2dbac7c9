"""All that Jinja and transformers offer to templates is there, with Jinja's results, or refused with a reason."""

from typing import Any

import jinja2.defaults
import jinja2.ext
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pio.errors import CheckpointError
from pio.text.chat_template import ChatTemplate

DATA: dict[str, Any] = {
    "text": "Hello <World> & naïve 日本 \n second\tline, a-b",
    "words": "one two  three four-five six",
    "items": [3, 1, 2, 3, 7],
    "records": [{"n": "b", "v": 2}, {"n": "a", "v": 1}],
    "table": {"x": 1, "class": 'a"b', "none": None, "y": [1, {"z": None}]},
    "html": "<!-- no --><p>Hi &amp; <b>bye</b></p>\n <i",
}
# Each of Jinja's filters, functions, tests and methods, in use. What has no use here must be in REFUSED.
USES = {
    "abs": "{{ -3 | abs }}",
    "attr": "{{ (text | attr('upper'))() }}{{ table | attr('x') | default('no item') }}",
    "batch": "{{ items | batch(2, 0) | list }}",
    "capitalize": "{{ words | capitalize }}",
    "center": "{{ 'a' | center(9) }}",
    "count": "{{ items | count }}",
    "d": "{{ nothing | d(1) }}",
    "default": "{{ nothing | default(1) }}",
    "dictsort": "{{ {'b': 1, 'A': 2} | dictsort }}{{ {'b': 1, 'A': 2} | dictsort(by='value', reverse=true) }}",
    "e": "{{ text | e }}",
    "escape": "{{ text | escape }}",
    "filesizeformat": "{{ 1234567 | filesizeformat }}{{ 1 | filesizeformat }}{{ 4096 | filesizeformat(true) }}",
    "first": "{{ items | first }}",
    "float": "{{ '1.5' | float }}",
    "forceescape": "{{ ('<' | safe) | forceescape }}{{ text | forceescape }}",
    "format": "{{ '%s-%03d' | format('a', 7) }}",
    "groupby": "{% for k, v in records | groupby('n') %}{{ k }}{{ v }}{% endfor %}",
    "indent": "{{ text | indent(2) }}",
    "int": "{{ '12' | int }}",
    "items": "{% for k, v in table | items %}{{ k }}{{ v }}{% endfor %}",
    "join": "{{ items | join(', ') }}{{ records | join('-', attribute='n') }}",
    "last": "{{ items | last }}",
    "length": "{{ items | length }}",
    "list": "{{ 'abc' | list }}",
    "lower": "{{ text | lower }}",
    "map": "{{ records | map(attribute='n') | list }}",
    "max": "{{ items | max }}",
    "min": "{{ items | min }}",
    "pprint": "{{ table | pprint }}{{ (records * 20) | pprint }}",
    "reject": "{{ items | reject('odd') | list }}",
    "rejectattr": "{{ records | rejectattr('v', 'eq', 1) | list }}",
    "replace": "{{ text | replace('l', 'L') }}",
    "reverse": "{{ words | reverse }}{{ items | reverse | list }}",
    "round": "{{ 2.567 | round(1) }}",
    "safe": "{{ '<' | safe }}",
    "select": "{{ items | select('odd') | list }}",
    "selectattr": "{{ records | selectattr('v', 'eq', 1) | list }}",
    "slice": "{{ items | slice(2) | list }}{{ items | slice(3, 'x') | list }}{{ [] | slice(2) | list }}",
    "sort": "{{ items | sort }}{{ records | sort(attribute='n') }}",
    "string": "{{ 7 | string }}",
    "striptags": "{{ html | striptags }}{{ text | striptags }}",
    "sum": "{{ items | sum }}{{ records | sum(attribute='v') }}",
    "title": "{{ words | title }}",
    "tojson": "{{ items | tojson }}",
    "trim": "{{ '  a ' | trim }}",
    "truncate": "{{ words | truncate(9) }}",
    "unique": "{{ items | unique | list }}",
    "upper": "{{ words | upper }}",
    "urlencode": "{{ text | urlencode }}{{ {'a b': 'c&d', 'e': 1} | urlencode }}"
    "{{ [('x', '/')] | urlencode }}{{ 7 | urlencode }}",
    "wordcount": "{{ words | wordcount }}{{ text | wordcount }}",
    "wordwrap": "{{ words | wordwrap(9) }}{{ ('x' * 30) | wordwrap(7, wrapstring='|') }}"
    "{{ text | wordwrap(5, false) }}",
    "xmlattr": "{{ table | xmlattr }}{{ {'a': 1} | xmlattr(false) }}",
    # functions
    "cycler": "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{{ c.next() }}"
    "{{ c.next() }}{{ c.reset() }}{{ c.next() }}",
    "dict": "{{ dict(a=1, b=text) }}{{ dict([('x', 1)]) }}{{ dict.fromkeys(items, 0) }}",
    "joiner": "{% set j = joiner() %}{{ j() }}a{{ j() }}b{{ j() }}{% set k = joiner('; ') %}{{ k() }}{{ k() }}",
    "namespace": "{% set ns = namespace(a=1) %}{% set ns.b = 2 %}{{ ns.a }}{{ ns.b }}",
    "range": "{{ range(2, 9, 3) | list }}",
    # tests
    "boolean": "{{ true is boolean }}",
    "callable": "{{ range is callable }}{{ 1 is callable }}",
    "defined": "{{ nothing is defined }}",
    "divisibleby": "{{ 9 is divisibleby 3 }}",
    "eq": "{{ 1 is eq 1 }}{{ 1 is equalto 2 }}{{ 1 is ne 2 }}",
    "escaped": "{{ ('<' | safe) is escaped }}",
    "even": "{{ 4 is even }}{{ 4 is odd }}",
    "false": "{{ false is false }}{{ true is true }}",
    "filter": "{{ 'upper' is filter }}{{ 'odd' is test }}",
    "float-test": "{{ 1.0 is float }}{{ 1 is integer }}{{ 1 is number }}",
    "ge": "{{ 2 is ge 1 }}{{ 2 is gt 1 }}{{ 2 is greaterthan 1 }}{{ 2 is le 1 }}{{ 2 is lt 1 }}{{ 2 is lessthan 1 }}",
    "in": "{{ 3 is in items }}",
    "iterable": "{{ items is iterable }}{{ items is sequence }}{{ table is mapping }}",
    "lower-test": "{{ 'a' is lower }}{{ 'a' is upper }}",
    "none": "{{ none is none }}{{ nothing is undefined }}",
    "sameas": "{{ items is sameas items }}",
    "string-test": "{{ text is string }}",
}  # fmt: skip
REFUSED = {
    "random": "{{ items | random }}",
    "urlize": "{{ text | urlize }}",
    "lipsum": "{{ lipsum() }}",
}
METHODS = {
    "capitalize": "", "casefold": "", "center": "9", "count": "'l'", "endswith": "'b'", "expandtabs": "2",
    "find": "'W'",
    "format": "", "format_map": "table", "index": "'W'", "isalnum": "", "isalpha": "", "isascii": "", "isdecimal": "",
    "isdigit": "", "isidentifier": "", "islower": "", "isnumeric": "", "isprintable": "", "isspace": "", "istitle": "",
    "isupper": "", "join": "['a', 'b']", "ljust": "60", "lower": "", "lstrip": "'H'", "partition": "'o'",
    "removeprefix": "'He'", "removesuffix": "'b'", "replace": "'l', 'L'", "rfind": "'l'", "rindex": "'l'",
    "rjust": "60",
    "rpartition": "'l'", "rsplit": "'l', 1", "rstrip": "'b'", "split": "' '", "splitlines": "", "startswith": "'H'",
    "strip": "'Hb'", "swapcase": "", "title": "", "upper": "", "zfill": "60",
}  # fmt: skip
OF_LISTS = {"copy": "", "count": "3", "index": "2"}
OF_DICTS = {"copy": "", "get": "'x'", "items": "", "keys": "", "values": ""}


def rendered(source: str) -> str:
    return ChatTemplate(source).render([{"role": "user", "content": "Hi"}], **DATA)


def by_jinja(source: str) -> str:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.policies["json.dumps_function"] = None
    return environment.from_string(source).render(**DATA)


@pytest.mark.parametrize("name", USES)
def test_what_is_there(name: str) -> None:
    assert rendered(USES[name]) == by_jinja(USES[name])


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(source: str) -> None:
    with pytest.raises(CheckpointError, match=r"is not available in chat templates: .*; render the prompt yourself"):
        rendered(source)


def test_nothing_of_jinja_is_forgotten() -> None:
    named = USES.keys() | REFUSED.keys()
    assert jinja2.defaults.DEFAULT_FILTERS.keys() <= named
    assert jinja2.defaults.DEFAULT_NAMESPACE.keys() <= named
    used = " ".join(USES.values())
    words = {name for name in jinja2.defaults.DEFAULT_TESTS if name.isalpha()}
    assert {name for name in words if f" is {name}" not in used} == set()


@pytest.mark.parametrize(
    ("kind", "value", "calls"), [(str, "text", METHODS), (list, "items", OF_LISTS), (dict, "table", OF_DICTS)]
)
def test_methods(kind: type, value: str, calls: dict[str, str]) -> None:
    for name in (name for name in dir(kind) if not name.startswith("_")):
        source = f"{{{{ {value}.{name}({calls.get(name, '')}) }}}}"
        if name in calls:
            assert rendered(source) == by_jinja(source), name
        else:
            with pytest.raises(CheckpointError, match=rf"{kind.__name__}\.{name} is not available.*: .*yourself"):
                rendered(source)


def test_a_key_with_the_name_of_a_method_is_no_error_until_it_is_called() -> None:
    assert rendered("{{ table.update is defined }}{{ table['clear'] is defined }}") == "FalseFalse"


def test_fast_paths_are_jinjas_ways() -> None:
    source = (
        "{{ table.x }}{{ table.missing is defined }}{{ table.items is callable }}"
        "{{ records[0].n == 'b' }}{{ 'b' == 1 }}{{ 1 == 'b' }}{{ 'a' == 'b' == 'c' }}{{ 'a' != 'b' }}{{ table.y[1].z }}"
    )
    assert rendered(source) == by_jinja(source)
