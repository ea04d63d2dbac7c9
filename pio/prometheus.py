"""A model's numbers for Prometheus: a collector for the application's own registry.

Needs prometheus-client (``pip install prometheus-client``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pio.errors import ConfigError, PioError

if TYPE_CHECKING:
    from pio.engine.stats import Stats
    from pio.plugin.interface import TextModelPlugin

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ConfigError(f"metrics need prometheus-client ({error}): pip install prometheus-client") from error

# Names without the endings that Prometheus adds to counters, the fields of ``Stats`` and what they are.
GAUGES: Final = {
    "pio_answers_running": ("running", "Answers that the model works on."),
    "pio_answers_waiting": ("waiting", "Answers that have not begun, or gave way to others."),
    "pio_cache_blocks": ("blocks", "Blocks of the cache."),
    "pio_cache_blocks_free": ("free_blocks", "Blocks of the cache that nobody holds."),
    "pio_cache_blocks_kept": ("kept_blocks", "Those of them that hold beginnings of prompts."),
    "pio_cache_states_kept": ("kept_states", "States of recurrent layers that are kept for beginnings of prompts."),
    "pio_disk_segments": ("disk_segments", "Files of beginnings of prompts on disk."),
    "pio_disk_bytes": ("disk_bytes", "Bytes of these files."),
}
COUNTERS: Final = {
    "pio_answers_finished": ("finished", "Answers that came to their end."),
    "pio_answers_dropped": ("dropped", "Answers that were cancelled, refused or failed."),
    "pio_steps": ("steps", "How often the model ran."),
    "pio_prompt_tokens": ("prompt_tokens", "Tokens of prompts that the model read."),
    "pio_completion_tokens": ("completion_tokens", "Tokens of answers that the model gave."),
    "pio_cached_tokens": ("cached_tokens", "Tokens of prompts that were found in the cache."),
    "pio_disk_tokens": ("disk_tokens", "Those of them that were found on disk."),
    "pio_disk_failures": ("disk_failures", "Files of beginnings of prompts that could not be written."),
    "pio_drafted_tokens": ("drafted_tokens", "Tokens that steps computed on the chance that they come next."),
    "pio_accepted_tokens": ("accepted_tokens", "Those of them that came, and are in answers."),
    "pio_draft_checks": ("draft_checks", "Steps of answers with such tokens."),
    "pio_encoded_media": ("encoded_media", "Pictures and videos that the model encoded."),
}


class ModelCollector(Collector):
    """Reads the numbers of some models whenever the registry is asked, which keeps them until it is unregistered.

    Example:
        >>> from prometheus_client import CollectorRegistry, generate_latest
        >>> registry = CollectorRegistry()
        >>> registry.register(ModelCollector({"demo": model}))
    """

    def __init__(self, models: Mapping[str, TextModelPlugin]) -> None:
        """Collect from models by name, the label ``model``; one that is not loaded is left out."""
        self._models = dict(models)

    def describe(self) -> list[Metric]:
        """Return the metrics without values, so that registering reads no model."""
        return _metrics({})

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all models."""
        found: dict[str, Stats] = {}
        for name, model in self._models.items():
            with suppress(PioError):  # one may be closed meanwhile
                if model.is_loaded:
                    found[name] = model.stats()
        yield from _metrics(found)


def _metrics(found: Mapping[str, Stats]) -> list[Metric]:
    metrics: list[Metric] = []
    for kinds, make in ((GAUGES, GaugeMetricFamily), (COUNTERS, CounterMetricFamily)):
        for name, (field, words) in kinds.items():
            metric = make(name, words, labels=["model"])
            for model, stats in found.items():
                metric.add_metric([model], getattr(stats, field))
            metrics.append(metric)
    return metrics
