"""What an engine counts and measures, for `/metrics`: totals since it was made, and the present numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """Counters only grow; gauges are the values now.

    queued, running              gauges: jobs
    drawing                      gauge: pictures on their way
    submitted, refused, done, failed, cancelled   counters: jobs; `refused` are those that found the queue full
    expired                      counter: finished jobs that were forgotten, as the configuration bounds the history
    pictures                     counter: pictures written
    waits, wait_seconds          counters: jobs that began, and their seconds in the queue
    forwards, forward_seconds    counters: forward passes of a transformer
    rows                         counter: pictures in these passes; rows / forwards is the batch fill
    batch                        pictures that a pass may hold
    prompt_hits, prompt_misses   counters: encoded prompts found in the cache, and not
    model_bytes                  gauge: weights in memory
    free_bytes                   gauge: memory that is left; None if unknown
    """

    queued: int = 0
    running: int = 0
    drawing: int = 0
    submitted: int = 0
    refused: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    pictures: int = 0
    waits: int = 0
    wait_seconds: float = 0.0
    forwards: int = 0
    forward_seconds: float = 0.0
    rows: int = 0
    batch: int = 0
    prompt_hits: int = 0
    prompt_misses: int = 0
    model_bytes: int = 0
    free_bytes: int | None = None
