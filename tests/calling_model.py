"""A folder with the demo model, and a chat template that writes calls of tools."""

from __future__ import annotations

import shutil
from pathlib import Path

import pio

TEMPLATE = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}
<tool_call>{% set f = c.function or c %}
{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is false %}{{ '<think></think>' }}{% endif %}{% endif %}"""


def make_calling_model(folder: Path, template: str = TEMPLATE) -> Path:
    """Copy the demo model; return the folder."""
    shutil.copytree(Path(pio.__file__).parent / "demo", folder)
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder
