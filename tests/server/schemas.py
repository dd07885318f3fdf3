"""schemathesis on the OpenAPI document: `python -m tests.server.schemas N` tries N requests for each route."""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.failures import Failure, FailureGroup
from starlette.types import ASGIApp

from tests.server.fuzz import full_queue

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
"""A status that the document names, in the form that it gives it, and none of 5xx."""

SECONDS = 120
"""For an answer, where schemathesis gives 10: this says what is answered, and a busy machine takes its time."""


def examine(app: ASGIApp, examples: int) -> tuple[int, list[str]]:
    """Try so many requests for every route; return how many were made, and what was wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of schemathesis itself
        schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
        calls, faults = 0, list[str]()
        for found in schema.get_all_operations():
            operation = found.ok()
            if operation.path == "/ready":  # says 503, as the queue is full
                continue

            @hypothesis.settings(
                max_examples=examples, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @hypothesis.given(case=operation.as_strategy())
            def run(case: schemathesis.Case) -> None:
                nonlocal calls
                calls += 1
                response = case.call(timeout=SECONDS)
                try:
                    case.validate_response(response, checks=CHECKS)
                except (Failure, FailureGroup) as failure:
                    faults.append(f"{case.method} {case.formatted_path}: {failure} {response.text[:200]}")

            run()
    return calls, faults


def main() -> int:
    """Examine an application over Toybox."""
    parser = argparse.ArgumentParser(prog="python -m tests.server.schemas", description=__doc__)
    parser.add_argument("examples", type=int, nargs="?", default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as data, full_queue("toybox", Path(data)) as app:
        calls, faults = examine(app, given.examples)
    print(f"{calls} requests, {len(faults)} faults")
    for line in dict.fromkeys(faults):
        print(line)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
