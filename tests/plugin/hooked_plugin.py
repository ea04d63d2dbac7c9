"""A plugin that does something in the middle of building its model, and what is asked of it."""

from __future__ import annotations

from pathlib import Path

from pio.models.qwen3_0_6b.plugin import Qwen3_0_6BPlugin

PROMPT = "def area(width, height):"
GREEDY = {"temperature": 0, "max_new_tokens": 6}


class Hooked(Qwen3_0_6BPlugin):
    during_build = staticmethod(lambda: None)

    def build_model(self, config, source, runtime, budget):
        self.during_build()
        return super().build_model(config, source, runtime, budget)


def load(path: str | Path) -> Hooked:
    """Return a loaded one."""
    plugin = Hooked()
    plugin.initialize(path=path)
    return plugin.load_model()
