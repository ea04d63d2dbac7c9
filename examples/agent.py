"""An agent: a model that asks for two tools until it has its answer.

python examples/agent.py [MODEL]            such as Qwen/Qwen3-0.6B, after pio download Qwen/Qwen3-0.6B

The demo model was never taught to call tools. Its first call, which it is made to begin, comes out malformed; it hears
so, and says something else.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pio

QUESTION = "How warm is it in Paris, in degrees Fahrenheit?"
TURNS = 6

# The demo model's own template has no place for tools; this one has.
TEMPLATE = """{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"""


def get_weather(city: str) -> dict[str, Any]:
    """A tool: what the weather is, in degrees Celsius."""
    return {"city": city, "celsius": 21}


def to_fahrenheit(celsius: float) -> float:
    """A tool: degrees Celsius in Fahrenheit."""
    return celsius * 9 / 5 + 32


FUNCTIONS: dict[str, Callable[..., Any]] = {"get_weather": get_weather, "to_fahrenheit": to_fahrenheit}


def tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    """Return the declaration of a tool, all of whose parameters are required."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    tool("get_weather", "The weather in a city, in degrees Celsius.", city={"type": "string"}),
    tool("to_fahrenheit", "Degrees Celsius in Fahrenheit.", celsius={"type": "number"}),
]


def run(call: pio.ToolCall) -> str:
    """Return what a call gives, or what is wrong with it: the model reads that and may try again."""
    if call.malformed:
        return f"error: {call.malformed}"
    try:
        return json.dumps(FUNCTIONS[call.name](**call.arguments))
    except TypeError as error:  # not all arguments, or others
        return f"error: {error}"


def ask(model: pio.TextModelPlugin, question: str) -> str:
    """Let the model call tools until it answers, and return the answer."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    choice: Any = {"name": "get_weather"}  # how every answer to such a question begins
    for turn in range(TURNS):
        fields: dict[str, Any] = {"tools": TOOLS, "tool_choice": choice, "max_new_tokens": 200, "seed": turn}
        result = model.generate(messages, **fields)
        messages.append(result.message)  # with the tokens that it was: the next turn computes only what is new
        if not result.tool_calls:
            return result.text
        for call in result.tool_calls:
            told = run(call)
            print(f"{turn}: {call.name} {json.dumps(call.arguments)}: {told}")
            messages.append({"role": "tool", "content": told, "tool_call_id": call.id})
        choice = "auto"
    return f"no answer in {TURNS} turns"


def main(path: str) -> None:
    """Ask the question."""
    with tempfile.TemporaryDirectory() as folder:
        if path == "demo":
            copy = shutil.copytree(Path(pio.__file__).parent / "demo", Path(folder, "demo"))
            (copy / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
            path = str(copy)
        with pio.load(path) as model:
            print(ask(model, QUESTION))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo")
