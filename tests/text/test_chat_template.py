"""Chat templates: where they come from, what they find, and that the sandbox changes nothing that they write."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jinja2.ext
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pio.errors import CheckpointError, ConfigError
from pio.text.chat_template import ChatTemplate

USER = {"role": "user", "content": "Hi"}
DEMO = Path(__file__).parents[2] / "pio" / "demo"


def rendered(source: str, messages: Any = (USER,), **given: Any) -> str:
    return ChatTemplate(source, special_tokens={"eos_token": "</s>"}).render(list(messages), **given)


def test_demo() -> None:
    template = ChatTemplate.from_folder(DEMO)
    begin = "<|im_start|>user\nHi<|im_end|>\n"
    assert template.render([USER]) == f"{begin}<|im_start|>assistant\n"
    assert template.render([USER], add_generation_prompt=False) == begin
    assert template.render([USER], enable_thinking=False) == f"{begin}<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert template.special_tokens == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def test_soft_switches_stay_in_the_text() -> None:
    text = ChatTemplate.from_folder(DEMO).render([{"role": "user", "content": "Hi /no_think"}])
    assert "Hi /no_think<|im_end|>" in text
    assert "<think>" not in text


def write(folder: Path, **files: Any) -> Path:
    names = {"config": "tokenizer_config.json", "jinja": "chat_template.jinja", "processor": "chat_template.json"}
    for name, content in files.items():
        (folder / names[name]).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return folder


def test_which_file_wins(tmp_path: Path) -> None:
    write(tmp_path, processor={"chat_template": "third"})
    assert ChatTemplate.from_folder(tmp_path).render([USER]) == "third"
    write(tmp_path, config={"chat_template": "second {{ eos_token }}", "eos_token": {"content": "<e>"}})
    assert ChatTemplate.from_folder(tmp_path).render([USER]) == "second <e>"
    write(tmp_path, jinja="first {{ eos_token }}")
    assert ChatTemplate.from_folder(tmp_path).render([USER]) == "first <e>"


def test_several_templates(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools {{ tools | length }}"}]
    template = ChatTemplate.from_folder(write(tmp_path, config={"chat_template": named}))
    assert template.render([USER]) == "plain"
    assert template.render([USER], tools=[{}, {}]) == "tools 2"
    with pytest.raises(ConfigError, match=r"'rag'.*no 'default'"):
        ChatTemplate({"rag": "x"}).render([USER])


def test_no_template(tmp_path: Path) -> None:
    template = ChatTemplate.from_folder(tmp_path)
    assert not template
    with pytest.raises(ConfigError, match=r"no chat template .*generate_text"):
        template.render([USER])


@pytest.mark.parametrize("value", [7, [{"name": "default"}], ["x"], {"default": "x"}])
def test_template_of_a_wrong_type(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: chat_template holds"):
        ChatTemplate.from_folder(write(tmp_path, config={"chat_template": value}))


def test_variables_and_defaults() -> None:
    source = "{{ a }}|{{ tools is none }}|{{ documents is none }}|{{ add_generation_prompt }}|{{ b is defined }}"
    assert rendered(source, a=[1, {"x": None}]) == "[1, {'x': None}]|True|True|True|False"
    assert rendered("{{ eos_token }}", eos_token="x") == "x"
    assert rendered("{{ documents[0].title }}", documents=[{"title": "T", "text": ""}]) == "T"
    with pytest.raises(ConfigError, match="a is a set"):
        rendered("", a={1})


def test_the_callers_data_is_not_touched() -> None:
    message: dict[str, Any] = {"role": "user", "content": "Hi"}
    rendered("{% for m in messages %}{% set m = {} %}{% endfor %}", [message])
    assert message == {"role": "user", "content": "Hi"}


def test_refusal_of_the_template() -> None:
    with pytest.raises(ConfigError, match="refuses this conversation: roles must alternate"):
        rendered("{{ raise_exception('roles must alternate') }}")


def test_data_that_the_template_did_not_expect() -> None:
    with pytest.raises(ConfigError, match=r"cannot render.*UndefinedError"):
        rendered("{{ messages[5].content }}")


def test_time() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", rendered("{{ strftime_now('%Y-%m-%d') }}"))


def test_generation_tag_and_loop_controls() -> None:
    source = "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}"
    assert rendered(source + "{% generation %}{{ i }}{% endgeneration %},{% endfor %}") == "0,1,3,4,"


def test_json_is_not_escaped() -> None:
    value = {"b": "<&'\">é👍", "a": [1.5, None, True]}
    assert rendered("{{ v | tojson }}", v=value) == json.dumps(value, ensure_ascii=False)
    assert rendered("{{ v | tojson(indent=2) }}", v=value) == json.dumps(value, ensure_ascii=False, indent=2)
    expected = json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    assert rendered("{{ v | tojson(ensure_ascii=true, separators=(',', ':'), sort_keys=true) }}", v=value) == expected


PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages[0].content }}", "ab"),
        ("{{ messages[0]['content'].split('b')[0] }}", "a"),
        ("{% for p in messages[0].content %}{{ p.text }};{% endfor %}", "a;b;"),
        ("{% set content = messages[0].content %}{% for p in content %}{{ p.text }};{% endfor %}", "a;b;"),
        ("{{ messages[0]['content'][1]['text'] }}", "b"),
        ("{{ messages[0].content | map(attribute='text') | join('+') }}", "a+b"),
    ],
)  # fmt: skip
def test_text_parts_are_joined_unless_the_template_reads_parts(source: str, text: str) -> None:
    assert rendered(source, [{"role": "user", "content": PARTS}]) == text


def test_an_image_for_a_template_of_text() -> None:
    with pytest.raises(ConfigError, match="'image'; this model reads text only"):
        rendered("{{ messages[0].content }}", [{"role": "user", "content": [{"type": "image", "url": "x"}]}])


def test_many_threads_at_once() -> None:
    template = ChatTemplate("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
                            "{{ ns.n }}{{ m.content }}{% endfor %}")  # fmt: skip
    conversations = [[{"role": "user", "content": f"c{i}"}] * (i % 5 + 1) for i in range(100)]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(template.render, conversations))
    assert found == ["".join(f"{n + 1}{m['content']}" for n, m in enumerate(c)) for c in conversations]


# What Jinja itself makes of a template, without budgets, is what ours must make of it.

DATA = {
    "text": "Hello <World> & naïve 日本 \n second\tline",
    "number": 17,
    "ratio": 2.5,
    "items": [3, 1, 2, 3],
    "records": [{"n": "b", "v": 2, "t": [1]}, {"n": "a", "v": 1, "t": []}, {"n": "b", "v": 3, "t": None}],
    "table": {"x": 1, "y": {"z": [1, "two", None, True]}, "items": 5},
    "empty": [],
    "nothing": None,
}
PIECES = [
    "{{ text }} {{ number }} {{ ratio }} {{ items }} {{ table }} {{ nothing }} {{ missing }} {{ text[2:-3:2] }}",
    "{{ items[0] + items[-1] * 2 - 7 // 2 % 3 ** 2 }} {{ 7 / 2 }} {{ -number }} {{ 'ab' * 3 }} {{ [1] * 2 + [3] }}",
    "{{ 'a' ~ number ~ none ~ items ~ true ~ 1.0 }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'lo' in text }}"
    " {{ 9 not in items }}",
    "{% for x in items if x > 1 %}{{ loop.index }}/{{ loop.length }}{{ loop.first }}{{ loop.last }}{{ x }}"
    "{{ loop.previtem }}{{ loop.nextitem }},{% else %}none{% endfor %}{% for x in empty %}{% else %}none{% endfor %}",
    "{% for k, v in table.items() %}{{ k }}={{ v }};{% endfor %}{{ table.get('q', 'd') }}{{ table['y'].z[1] }}",
    "{% macro m(a, b=2) %}[{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{{ caller() if caller else '' }}]{% endmacro %}"
    "{{ m(1) }}{{ m(1, 3, 4, 5, z=6) }}{% call m(7) %}inner {{ number }}{% endcall %}",
    "{% set ns = namespace(a=1, b=[]) %}{% for x in items %}{% set ns.a = ns.a + x %}{% set ns.b = ns.b + [x] %}"
    "{% endfor %}{{ ns.a }}{{ ns.b }}{% set x %}block {{ ns.a }}{% endset %}{{ x }}{% with q = 5 %}"
    "{{ q }}{% endwith %}",
    "{{ text | upper }}{{ text | title }}{{ text | trim('He') }}{{ text | replace('l', 'LL', 2) }}{{ text | length }}",
    "{{ items | sort | join(', ') }}{{ items | unique | list }}{{ items | sum }}{{ items | max }}{{ items | first }}"
    "{{ items | last }}{{ items | reverse | list }}{{ items | batch(3, 0) | list }}{{ items | map('string') | list }}",
    "{{ records | selectattr('v', 'gt', 1) | map(attribute='n') | list }}{{ records | rejectattr('t') | list }}"
    "{{ records | groupby('n') | map(attribute='list') | map('length') | list }}{{ records | sort(attribute='v,n') }}"
    "{{ records | sum('v') }}{{ records | map(attribute='q', default='-') | join }}{{ items | select('odd') | list }}",
    "{% if records | selectattr('v', 'equalto', 9) %}lazy is true{% endif %}{{ table | dictsort | first }}",
    "{{ text | escape }}{{ text | safe }}{{ ('<' | safe) + '<' }}{{ '<%s>' | format(number) }}"
    "{{ '%05d|%-6s|' % (number, 'a') }}",
    "{{ '{0:>8}|{a!r}|{b[0]}'.format(number, a='x', b=items) }}{{ '{x}'.format_map(table) }}"
    "{{ text | indent(2, true) }}",
    "{{ ratio | round }}{{ ratio | int }}{{ '12' | int }}{{ 'z' | int(5) }}{{ '1.5' | float }}"
    "{{ -3 | abs }}{{ text | center(60) }}",
    "{{ nothing | default('d') }}{{ missing | default('d') }}{{ nothing | default('d', true) }}"
    "{{ text | truncate(9) }}",
    "{{ text.split() }}{{ text.split('l', 1) }}{{ text.rsplit('l', 1) }}{{ text.splitlines() }}"
    "{{ text.partition(' ') }}"
    "{{ text.startswith(('H', 'x')) }}{{ text.find('W') }}{{ text.strip('He') }}{{ 'a'.join(['x', 'y']) }}"
    "{{ 'a'.zfill(4) }}",
    "{{ text is string }}{{ table is mapping }}{{ items is sequence }}{{ items is iterable }}{{ missing is defined }}"
    "{{ nothing is none }}{{ number is odd }}{{ 3 is in items }}{{ number is divisibleby 17 }}{{ true is boolean }}",
    "{% for x in [[1, [2, []]], [3, []]] recursive %}({{ x[0] }}{{ loop([x[1]]) if x[1] }}){% endfor %}",
    "{% filter upper %}abc {{ number }}{% endfilter %}{# comment #}{% raw %}{{ x }}{% endraw %}{{ range(3) | list }}",
    "{{ dict(a=1, b=number) }}{{ items[::-1] }}{{ items[1:] }}{{ (1, 2)[0] }}{{ {'a': {'b': 1}}.a.b }}{{ 'x' if 0 }}",
    "{{ table['items'] }}{{ text['upper']() }}{{ items.index(2) }}",
    "  {% if number %}\n  spaces\n  {%- endif %}\n\n{%+ if 1 %} x {% endif %}\n{{- text -}}\n end\n",
]  # fmt: skip


def by_jinja(source: str) -> str:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    return environment.from_string(source).render(**DATA)


@pytest.mark.parametrize("source", PIECES)
def test_the_budget_changes_nothing(source: str) -> None:
    assert rendered(source, **DATA) == by_jinja(source)


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6))
def test_pieces_together(pieces: list[str]) -> None:
    assert rendered("\n".join(pieces), **DATA) == by_jinja("\n".join(pieces))


def test_a_long_conversation_is_within_the_budget() -> None:
    """Ten thousand messages, four megabytes: the budget grows with what the caller gives."""
    messages = [USER, {"role": "assistant", "content": "<think>\nwhy\n</think>\n\n" + "word " * 80}] * 5000
    source = (
        "{% for m in messages %}{% set c = m.content %}{% if '</think>' in c %}"
        "{% set c = c.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
        "{{ '<' + m.role + '>\\n' + c + '\\n' }}{% endfor %}"
    )
    assert len(rendered(source, messages)) == 5000 * (len("<user>\nHi\n") + len("<assistant>\n") + 401)


def test_a_deep_schema_is_within_the_budget() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for level in range(25):
        schema = {"type": "object", "properties": {f"p{level}": schema}}
    source = (
        "{% macro show(s) %}{{ s.type }}{% for k, v in (s.properties or {}).items() %}.{{ show(v) }}{% endfor %}"
        "{% endmacro %}{{ show(schema) }}"
    )
    assert rendered(source, schema=schema) == "object." * 25 + "string"


def test_programs_that_import_it_from_where_it_was_go_on():
    from pio.loading.chat_template import ChatTemplate as Before

    assert Before is ChatTemplate
