"""Templates and tokenizers that nobody should send: one typed error each, soon, without much memory."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from needs import link, needs_symlinks

from pio.errors import CheckpointError, ConfigError, PioError
from pio.system import HERE
from pio.text.chat_template import ChatTemplate
from pio.text.tokenizer import MAX_TOKENIZER_BYTES, Tokenizer

MESSAGES = [{"role": "user", "content": "Hi"}]
GROW = "{% set ns = namespace(x=START) %}{% for i in range(100) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x }}"
LOOP = "{% for i in range(100000) %}{% for j in range(100000) %}BODY{% endfor %}{% endfor %}"
BIG = "{% set x = 'a ' * 2000000 %}{% set l = range(50000) | list %}{% for i in range(100000) %}BODY{% endfor %}"


def grow(start: str, step: str) -> str:
    return GROW.replace("START", start).replace("STEP", step)


def loop(body: str) -> str:
    return LOOP.replace("BODY", body)


def big(body: str) -> str:
    return BIG.replace("BODY", body)


RUNS_AWAY = {
    # loops
    "empty-loop": loop(""),
    "condition": "{% for i in range(1000) %}{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
    "long-output": loop("x" * 10_000),
    "long-block": "{% set x %}" + loop("x" * 10_000) + "{% endset %}",
    "generation": "{% generation %}" + loop("") + "{% endgeneration %}",
    "long-body": loop("{% if messages %}{% endif %}" * 500),
    "macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macro-twice": "{% macro m() %}{% if m() %}{{ m() }}{% endif %}{% endmacro %}{{ m() }}",
    "macro-tree": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(50) }}",
    "recursive-loop": "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
    "callers": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call m() %}" * 30
    + "a"
    + "{% endcall %}" * 30,
    # text
    "times": "{{ 'a' * 10 ** 9 }}",
    "times-list": "{{ ([0] * 10 ** 9) | length }}",
    "plus": grow("'aa'", "ns.x + ns.x"),
    "tilde": grow("'aa'", "ns.x ~ ns.x"),
    "plus-list": grow("[1]", "ns.x + ns.x"),
    "join": grow("'aa'", "[ns.x, ns.x] | join"),
    "join-method": "{{ ('x' * 100000).join('y' * 100000) }}",
    "join-filter": "{{ range(100000) | join('x' * 100000) }}",
    "replace": grow("'a'", "ns.x.replace('a', 'aaa')"),
    "replace-filter": "{{ ('a' * 100000) | replace('', 'b' * 100000) }}",
    "format-grows": grow("'aa'", "'{0}{0}'.format(ns.x)"),
    "percent-grows": grow("'aa'", "'%s%s' % (ns.x, ns.x)"),
    "block-grows": grow("'aa'", "1").replace("{% set ns.x = 1 %}", "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
    "json-grows": grow("'\"'", "ns.x | tojson"),
    "markup-grows": grow("('&' | safe)", "ns.x.join(['&&&', '&&&&', '&&&&&'])"),
    "center": "{{ 'a' | center(10 ** 9) }}",
    "center-method": "{{ 'a'.center(10 ** 9) }}",
    "ljust": "{{ 'a'.ljust(10 ** 9) }}",
    "rjust": "{{ 'a'.rjust(10 ** 9) }}",
    "zfill": "{{ 'a'.zfill(10 ** 9) }}",
    "expandtabs": "{{ ('\\t' * 1000).expandtabs(10 ** 8) }}",
    "indent": "{{ ('a\\n' * 1000) | indent(10 ** 7) }}",
    "indent-text": "{{ ('a\\n' * 100000) | indent('b' * 100000) }}",
    "percent-width": "{{ '%1000000000d' % 1 }}",
    "percent-star": "{{ '%*d' % (10 ** 9, 1) }}",
    "percent-precision": "{{ '%.1000000000f' % 1.5 }}",
    "percent-name": "{{ '%(a)999999999s' % {'a': 1} }}",
    "format-filter": "{{ '%999999999d' | format(1) }}",
    "format-width": "{{ '{:1000000000}'.format(1) }}",
    "format-nested-width": "{{ '{:{w}}'.format(1, w=10 ** 9) }}",
    "format-map": "{{ '{a:>{b}}'.format_map({'a': 1, 'b': '99999999'}) }}",
    "json-indent": "{{ [[[1]]] | tojson(indent=10 ** 9) }}",
    "json-separators": "{{ [1, 2] | tojson(separators=('x' * 10 ** 6, ':')) }}",
    "strftime": "{{ strftime_now('%c' * 10000) }}",
    # numbers
    "power": "{{ 10 ** (10 ** 10) }}",
    "squares": grow("7", "ns.x * ns.x"),
    "round": "{{ 5 | round(-10 ** 9) }}",
    "range": "{{ range(10 ** 12) | list }}",
    "ranges": big("{% set y = range(99999) | list %}"),
    # structures
    "laughs": grow("[1]", "[ns.x, ns.x]"),
    "laughs-dict": grow("{'a': 1}", "{'a': ns.x, 'b': ns.x}"),
    "laughs-tuple": grow("(1, 2)", "(ns.x, ns.x)").replace("{{ ns.x }}", "{{ ns.x == ns.x }}"),
    "laughs-dict-call": grow("1", "dict(a=ns.x, b=ns.x)"),
    "laughs-times": grow("[1]", "[ns.x] * 2"),
    "laughs-views": grow("[1]", "{'a': ns.x, 'b': ns.x}.values()"),
    "laughs-items": grow("[1]", "{'a': ns.x, 'b': ns.x}.items() | list"),
    "laughs-varargs": "{% set ns = namespace(x=1) %}{% macro m() %}{% set ns.x = varargs %}{% endmacro %}"
    "{% for i in range(100) %}{{ m(ns.x, ns.x) }}{% endfor %}",
    "laughs-kwargs": "{% set ns = namespace(x=1) %}{% macro m() %}{% set ns.x = kwargs %}{% endmacro %}"
    "{% for i in range(100) %}{{ m(a=ns.x, b=ns.x) }}{% endfor %}",
    "batch": "{{ [1] | batch(10 ** 9, 0) | list }}",
    "characters": "{{ ('a' * 10000000) | list | length }}",
    "starred": "{% macro m() %}{% endmacro %}{{ m(*('a' * 10000000)) }}",
    "split": "{{ ('a ' * 5000000).split() | length }}",
    "split-lines": "{{ ('a\\n' * 5000000).splitlines() | length }}",
    # searches and comparisons, each dear and many
    "find": "{{ ('a' * 8000000).find('a' * 50 ~ 'b') }}",
    "rfind": "{{ ('a' * 2000000).rfind('b' ~ 'a' * 100000) }}",
    "in-text": big("{% if 'b' in x %}{% endif %}"),
    "in-list": big("{% if 'b' in l %}{% endif %}"),
    "in-range": big("{% if 'b' in range(100000) %}{% endif %}"),
    "in-test": big("{% if 'b' is in l %}{% endif %}"),
    "equal": big("{% if l == l + [] %}{% endif %}"),
    "hash": big("{% set d = {('a',) * 10000: 1} %}"),
    "upper-test": big("{% if x is upper %}{% endif %}"),
    "upper": big("{% set y = x.upper() %}"),
    "strip": big("{% set y = x.strip('a ') %}"),
    "slices": big("{% set y = x[1:] %}"),
    "reverse": big("{% set y = x | reverse %}"),
    "truncate": big("{% set y = x | truncate(9) %}"),
    "sort": big("{% set y = l | sort %}"),
    "unique": big("{% set y = l | unique | list %}"),
    "map": big("{% set y = l | map('string') | list %}"),
    "changed": big("{{ loop.changed(l + [1]) }}"),
    "attribute-path": "{{ (['a'] * 50000) | map(attribute='a.' * 100000) | list | length }}",
    # what Jinja offers besides
    "joiner": "{% set glue = joiner('x' * 1000000) %}" + loop("{{ glue() }}"),
    "cycler": "{% set turns = cycler('x' * 1000000) %}" + loop("{{ turns.next() }}"),
    "cycler-grows": "{% set ns = namespace(c=cycler(1)) %}" + loop("{% set ns.c = cycler(ns.c, ns.c) %}"),
    "from-keys": big("{% set d = dict.fromkeys(l, l) %}"),
    "slice": "{{ [1] | slice(10 ** 9) | list }}",
    "slice-lists": big("{% set y = l | slice(9) | list %}"),
    "word-count": big("{% set y = x | wordcount %}"),
    "word-wrap": "{{ ('a' * 1000000) | wordwrap(1) }}",
    "word-wraps": "{{ ('a ' * 100000) | wordwrap(2, wrapstring='x' * 100000) }}",
    "strip-tags": big("{% set y = x | striptags %}"),
    "comments": "{{ ('<!-- -->' * 1000000) | striptags }}" * 9,
    "url-grows": grow("'%'", "[(ns.x, ns.x)] | urlencode"),
    "url-pairs": big("{% set y = {x: x} | urlencode %}"),
    "xml-grows": grow("'&'", "{'a': ns.x} | xmlattr"),
    "escape-grows": grow("'&'", "[ns.x, ns.x] | forceescape"),
    "pretty-grows": grow("'a'", "[ns.x, ns.x] | pprint"),
    "attr": big("{% set y = x | attr(x) %}"),
    "many-fields": "{{ ('{}' * 1000000).format(1) }}",
}
INTERNALS = {
    "class": "{{ ''.__class__ }}",
    "class-of-data": "{{ messages.__class__.__mro__ }}",
    "class-by-key": "{{ ''['__class__'] }}",
    "globals": "{{ range.__globals__ }}",
    "function": "{{ raise_exception._run.__globals__ }}",
    "by-attribute": "{{ [''] | map(attribute='__class__') | list }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(namespace) }}",
    "format-map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "self": "{{ self.__init__ }}",
    "self-written": "{{ self }}",
    "namespace": "{{ namespace()._Namespace__attrs }}",
    "namespace-name": "{% set ns = namespace(__class__=1) %}",
    "namespace-set": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "loop": "{% for x in [1] %}{{ loop._iterator }}{% endfor %}",
    "macro": "{% macro m() %}{% endmacro %}{{ m._func }}",
    "macro-call": "{% macro m() %}{% endmacro %}{{ m.__call__.__func__ }}",
    "method": "{{ ''.join }}",
    "method-call": "{{ ''.join.__call__('a') }}",
    "encode": "{{ 'a'.encode() }}",
    "integer": "{{ (1).to_bytes(10 ** 9, 'big') }}",
    "append": "{{ messages.append(1) }}",
    "clear": "{{ messages[0].clear() }}",
    "attr": "{{ ''|attr('__class__') }}",
    "attr-made": "{{ [] | attr('__cl' ~ 'ass__') }}",
    "cycler": "{{ cycler(1)._items }}",
    "cycler-class": "{{ cycler(1).next.__call__ }}",
    "joiner": "{{ joiner()._run }}",
    "joiner-written": "{{ joiner() }}{{ joiner() | string }}",
    "dict": "{{ dict.__init__ }}{{ dict._run }}",
    "pretty": "{{ cycler(1) | pprint }}",
    "undefined": "{{ nothing.__class__ }}{{ nothing | default.__class__ }}",
}
UNUSABLE = {
    "unclosed": "{% for x in",
    "unknown-filter": "{{ 1 | nosuch }}",
    "unknown-test": "{{ 1 is nosuch }}",
    "shell": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "extends": "{% extends 'x' %}",
    "block": "{% block a %}{{ self.a() }}{% endblock %}",
    "autoescape": "{% autoescape true %}{% endautoescape %}",
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "lists": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "nots": "{{ " + "not " * 5000 + "1 }}",
    "sums": "{{ " + "1+" * 5000 + "1 }}",
    "attributes": "{{ a" + ".b" * 5000 + " }}",
    "ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "loops": "{% for x in [1] %}" * 30 + "{% endfor %}" * 30,
    "deep-and-wide": "{% for x in a %}" * 18 + "{{ x }}" * 8000 + "{% endfor %}" * 18,
    "wide": "{% set y=[1,1,1,1,1,1,1,1] %}" * 2200,
    "digits": "{{ " + "1" * 10_000 + " }}",
    "huge": "a" * 64_001,
}


@contextmanager
def growing_by_less_than(megabytes: int) -> Iterator[None]:
    """Check that meanwhile this process never has so much more memory than before.

    Where the largest figure cannot be reset, only what goes beyond it is seen.
    """
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if reset.exists():
        reset.write_text("5", encoding="utf-8")
        before = int(re.findall(r"VmRSS:\s+(\d+) kB", status.read_text(encoding="utf-8"))[0]) << 10
    else:
        before = HERE.peak_memory()
    yield
    after = HERE.peak_memory()
    assert before is not None and after is not None and after - before < megabytes << 20


def refused(source: str, messages: list[dict[str, str]] = MESSAGES, megabytes: int = 96) -> PioError:
    """Render a template that must not succeed; the process must not grow by more than these megabytes meanwhile."""
    with growing_by_less_than(megabytes), pytest.raises(PioError) as error:
        ChatTemplate(source, where="hostile/").render(messages)
    assert "hostile/" in str(error.value)
    assert len(str(error.value)) < 1000
    return error.value


@pytest.mark.parametrize("source", RUNS_AWAY.values(), ids=RUNS_AWAY)
def test_templates_that_run_away(source: str) -> None:
    error = refused(source)
    assert isinstance(error, CheckpointError)
    assert "was stopped" in str(error)


@pytest.mark.parametrize("source", INTERNALS.values(), ids=INTERNALS)
def test_templates_that_reach_for_python(source: str) -> None:
    error = refused(source)
    if "undefined" not in str(error) and "TemplateSyntaxError" not in str(error):
        assert isinstance(error, CheckpointError)
        assert "Python internals" in str(error) or "cannot be used" in str(error)


@pytest.mark.parametrize("source", UNUSABLE.values(), ids=UNUSABLE)
def test_templates_that_cannot_be_used(source: str) -> None:
    error = refused(source)
    assert isinstance(error, CheckpointError)
    assert "download" in str(error) or "render the prompt yourself" in str(error)


LONG = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i} of many"} for i in range(500)]
STOPPED_FOR_LONG_CONVERSATIONS = {
    "cubic": "{% for a in messages %}{% for b in messages %}{% for c in messages %}{% endfor %}{% endfor %}"
    "{% endfor %}",
    "characters": "{% for a in messages %}{% for b in messages %}{{ b.content }}{{ a.content }}{{ b.content * 99 }}"
    "{% endfor %}{% endfor %}",
    "kept": "{% set ns = namespace(x='', l=[]) %}{% for a in messages %}{% for b in messages %}"
    "{% set ns.x = ns.x ~ b.content %}{% set ns.l = ns.l + [ns.x] %}{% endfor %}{% endfor %}",
    "doubled": "{% set ns = namespace(x='ab') %}{% for m in messages %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "laughs": "{% set ns = namespace(x=[1]) %}{% for m in messages %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}",
    "containers": "{% set ns = namespace(l=[]) %}{% for a in messages %}{% for b in messages %}"
    "{% set ns.l = [ns.l, [a]] %}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("source", STOPPED_FOR_LONG_CONVERSATIONS.values(), ids=STOPPED_FOR_LONG_CONVERSATIONS)
def test_what_a_long_conversation_allows_is_bounded_too(source: str) -> None:
    error = refused(source, LONG, megabytes=256)
    assert isinstance(error, CheckpointError)
    assert "was stopped" in str(error)
    assert "fewer or shorter messages" in str(error)
    assert "trust" not in str(error)  # an honest template may do it


def test_the_process_goes_on() -> None:
    refused(loop(""))
    assert ChatTemplate("{{ messages[0].content }}").render(MESSAGES) == "Hi"


def test_a_refusal_cannot_flood_the_log() -> None:
    with pytest.raises(ConfigError) as error:
        ChatTemplate("{{ raise_exception('x' * 1000000) }}").render(MESSAGES)
    assert len(str(error.value)) < 1000


# Tokenizers

BASE: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"},
}
ADDED: dict[str, Any] = {
    **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False),
    "id": 3,
    "content": "<x>",
}


def folder(path: Path, **fields: Any) -> Path:
    (path / "tokenizer.json").write_text(json.dumps(BASE | fields))
    return path


def bpe(vocab: list[str], merges: list[Any], **fields: Any) -> dict[str, Any]:
    return {"type": "BPE", "vocab": {token: i for i, token in enumerate(vocab)}, "merges": merges, **fields}


PANICKING_NORMALIZER = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\xff\xff\xff\xff").decode()}
BROKEN_FILES = {
    "empty": b"",
    "text": b"tokenizer",
    "truncated": json.dumps(BASE).encode()[:-9],
    "list": b"[1, 2]",
    "no-model": b'{"version": "1.0"}',
    "binary": bytes(range(256)),
    "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "unknown-model": json.dumps(BASE | {"model": {"type": "Magic"}}).encode(),
    "missing-merge": json.dumps(BASE | {"model": bpe(["a"], ["a b"])}).encode(),
    "empty-vocabulary": json.dumps(BASE | {"model": {"type": "WordLevel", "vocab": {}, "unk_token": "x"}}).encode(),
    "huge-id": json.dumps(BASE | {"model": BASE["model"] | {"vocab": {"a": 2**32 - 1, "[UNK]": 1}}}).encode(),
    "bad-regex": json.dumps(
        BASE | {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}}
    ).encode(),
    "panic": json.dumps(BASE | {"normalizer": PANICKING_NORMALIZER}).encode(),
    # These two abort the process if the library sees them.
    "cut-character": json.dumps(
        BASE | {"model": bpe(["a", "éb", "ab"], [["a", "éb"]], continuing_subword_prefix="x")}, ensure_ascii=False
    ).encode(),
    "cut-character-hidden": json.dumps(
        BASE | {"model": bpe(["a", "éb", "ab"], ["a éb"], continuing_subword_prefix="x")}
    ).replace("continuing", "\\u0063ontinuing").encode(),
    "no-id": json.dumps(BASE | {"model": BASE["model"] | {"vocab": {"a": None, "[UNK]": 1}}}).encode(),
    "one-id-twice": json.dumps(BASE | {"model": BASE["model"] | {"vocab": {"a": 1, "[UNK]": 1}}}).encode(),
    "added-is-null": json.dumps(BASE | {"added_tokens": None}).encode(),
    "added-without-content": json.dumps(BASE | {"added_tokens": [{"id": 3, "special": True}]}).encode(),
    "added-without-id": json.dumps(BASE | {"added_tokens": [ADDED | {"id": None}]}).encode(),
    "added-below-zero": json.dumps(BASE | {"added_tokens": [ADDED | {"id": -1}]}).encode(),
    "added-beyond": json.dumps(BASE | {"added_tokens": [ADDED | {"id": 2**32 - 1}]}).encode(),
    "added-twice": json.dumps(BASE | {"added_tokens": [ADDED, ADDED | {"id": 4}]}).encode(),
    "added-meets-vocabulary": json.dumps(
        BASE | {"model": BASE["model"] | {"vocab": {"a": 0, "[UNK]": 2}}, "added_tokens": [ADDED | {"id": 2}]}
    ).encode(),
    "merge-of-three": json.dumps(BASE | {"model": bpe(["a", "b", "ab"], [["a", "b", "a"]])}).encode(),
    "merge-is-a-number": json.dumps(BASE | {"model": bpe(["a", "b", "ab"], [7])}).encode(),
    "growth": json.dumps(
        BASE
        | {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40,
            }
        }
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("content", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_tokenizer_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json.*(download|do not use)") as error:
        Tokenizer.from_folder(tmp_path)
    assert len(str(error.value)) < 1000 + len(str(tmp_path))


def test_a_file_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "tokenizer.json", "wb") as file:
        file.truncate(MAX_TOKENIZER_BYTES + 1)
    with pytest.raises(CheckpointError, match=str(MAX_TOKENIZER_BYTES)):
        Tokenizer.from_folder(tmp_path)


PANICS_WHEN_USED = {
    "special-token": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    },
    "length-of-zero": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "id-outside": {"post_processor": {"type": "BertProcessing", "sep": ["x", 9], "cls": ["y", 8]}},
}


@pytest.mark.parametrize("fields", PANICS_WHEN_USED.values(), ids=PANICS_WHEN_USED)
def test_tokenizers_that_fail_later(tmp_path: Path, fields: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_folder(folder(tmp_path, **fields))
    assert tokenizer is not None
    with pytest.raises(PioError, match=r"tokenizer\.json"):
        tokenizer.encode("a b")


def test_a_panic_while_decoding(tmp_path: Path) -> None:
    decoder = {"type": "Strip", "content": "a", "start": 3, "stop": 3}
    tokenizer = Tokenizer.from_folder(folder(tmp_path, decoder=decoder))
    assert tokenizer is not None
    with pytest.raises(PioError, match=r"tokenizer\.json.*panicked"):
        tokenizer.decode([0, 0])
    assert tokenizer.encode("a") == [0]


@pytest.mark.parametrize("merges", [["a b"], [["a", "b"]]], ids=["texts", "pairs"])
def test_merges_of_both_forms(tmp_path: Path, merges: list[Any]) -> None:
    tokenizer = Tokenizer.from_folder(folder(tmp_path, model=bpe(["a", "b", "ab"], merges)))
    assert tokenizer is not None
    assert tokenizer.encode("abb") == [2, 1]


@pytest.mark.parametrize("name", ["added_tokens_decoder", "extra_special_tokens", "eos_token", "x_token"])
def test_tokens_that_are_no_unicode(tmp_path: Path, name: str) -> None:
    folder(tmp_path)
    lone = {"content": "\ud800", **{flag: False for flag in ("lstrip", "rstrip", "special")}}
    value: Any = {"added_tokens_decoder": {"3": lone}, "extra_special_tokens": ["\ud800"]}.get(name, "\ud800")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({name: value}))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


def test_prefixed_merges_that_are_sound_are_accepted(tmp_path: Path) -> None:
    model = bpe(["a", "##b", "ab"], ["a ##b"], continuing_subword_prefix="##")
    tokenizer = Tokenizer.from_folder(folder(tmp_path, model=model))
    assert tokenizer is not None
    assert tokenizer.encode("ab") == [2]


@needs_symlinks
def test_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    folder(tmp_path)
    link(tmp_path / "model" / "tokenizer.json", tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match="leads out"):
        Tokenizer.from_folder(tmp_path / "model")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b'{"a":' * 5000 + b"1" + b"}" * 5000, b'{"a": 1, "a": 2}'], ids=range(6)
)
def test_tokenizer_configs(tmp_path: Path, content: bytes) -> None:
    folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    for load in (Tokenizer.from_folder, ChatTemplate.from_folder):
        with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
            load(tmp_path)


def test_a_template_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is not UTF-8"):
        ChatTemplate.from_folder(tmp_path)
