"""Counters and gauges in the text format of Prometheus: of the engine, of responses, and of the process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from starlette.types import Scope

from sanakit.server.engine.stats import EngineStats

MEDIA_TYPE = CONTENT_TYPE_PLAIN_1_0_0

_GAUGES = {
    "queued": ("sanakit_jobs_queued", "Jobs that wait."),
    "running": ("sanakit_jobs_running", "Jobs that are drawn."),
    "drawing": ("sanakit_pictures_drawing", "Pictures on their way."),
    "batch": ("sanakit_batch_size_max", "Pictures that a forward pass may hold."),
    "model_bytes": ("sanakit_model_bytes", "Weights in memory."),
    "free_bytes": ("sanakit_memory_free_bytes", "Memory that is left."),
}
_COUNTERS = {
    "submitted": ("sanakit_jobs_submitted", "Jobs that were accepted."),
    "refused": ("sanakit_jobs_refused", "Jobs that found the queue full."),
    "expired": (
        "sanakit_jobs_expired",
        "Finished jobs that left the history by --keep-days or --keep-pictures.",
    ),
    "pictures": ("sanakit_pictures", "Pictures that were written."),
    "waits": ("sanakit_jobs_started", "Jobs that began."),
    "wait_seconds": ("sanakit_queue_wait_seconds", "Seconds that jobs spent in the queue before they began."),
    "forwards": ("sanakit_forwards", "Forward passes of a transformer."),
    "forward_seconds": ("sanakit_forward_seconds", "Seconds in forward passes."),
    "rows": (
        "sanakit_forward_pictures",
        "Pictures in forward passes; over the passes, how full batches are.",
    ),
    "prompt_hits": ("sanakit_prompt_cache_hits", "Prompts whose states were kept."),
    "prompt_misses": ("sanakit_prompt_cache_misses", "Prompts that were encoded."),
}
_ENDS = ("done", "failed", "cancelled")
_APIS = {"v1": "openai", "sdapi": "a1111", "api": "native"}
"""First part of a path -> the label of its requests; a label of any other path would let strangers make labels."""


class _Engine:
    """The engine's numbers, as a collector of one scrape."""

    def __init__(self, stats: EngineStats) -> None:
        self.stats = stats

    def collect(self) -> list[Metric]:
        """Return the families."""
        found: list[Metric] = []
        for field, (name, words) in _GAUGES.items():
            value = getattr(self.stats, field)
            if value is not None:
                found.append(GaugeMetricFamily(name, words, value=value))
        for field, (name, words) in _COUNTERS.items():
            found.append(CounterMetricFamily(name, words, value=getattr(self.stats, field)))
        ended = CounterMetricFamily("sanakit_jobs_ended", "Jobs that ended, by how.", labels=["state"])
        for state in _ENDS:
            ended.add_metric([state], getattr(self.stats, state))
        return [*found, ended]


class Metrics:
    """What one server counts of its requests, and the text that shows it with the engine's numbers."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        labels = ["api", "status"]
        self._responses = Counter("sanakit_http_responses", "Responses.", labels, registry=self._registry)
        self._seconds = Histogram(
            "sanakit_http_response_seconds",
            "Seconds until the end of a response.",
            ["api"],
            registry=self._registry,
        )

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a response."""
        api = _APIS.get(scope["path"].split("/", 2)[1] if scope["path"].startswith("/") else "", "other")
        self._responses.labels(api, str(status)).inc()
        self._seconds.labels(api).observe(seconds)

    def text(self, stats: EngineStats) -> bytes:
        """Return everything."""
        engine = CollectorRegistry(auto_describe=False)
        engine.register(_Engine(stats))
        return generate_latest(engine) + generate_latest(self._registry)
