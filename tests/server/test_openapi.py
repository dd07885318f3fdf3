"""The OpenAPI document: complete, and with the bounds that requests are checked by."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from sanakit.flow import SOLVERS
from sanakit.pipeline.fields import Number, Side, Whole
from sanakit.pipeline.request import request_fields


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (path, operation) for path, methods in document["paths"].items() for operation in methods.values()
    ]


def test_every_operation_has_a_name_a_sentence_and_its_errors(document: dict[str, Any]):
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names) > 20
    assert "create_job" in names and "generate_images" in names
    for path, operation in operations(document):
        assert operation["description"].endswith("."), path
        if path.startswith(("/api", "/v1", "/sdapi")) and not path.startswith("/api/images"):
            assert operation["security"] == [{"HTTPBearer": []}], path
            assert {"401", "403", "429"} <= operation["responses"].keys(), path


def test_fields_have_the_bounds_of_their_checks(document: dict[str, Any]):
    for name in ("ImageRequest", "ImagesRequest"):
        properties = document["components"]["schemas"][name]["properties"]
        for entry in request_fields():
            if entry.name not in properties or entry.name == "prompt":
                continue
            told = properties[entry.name]
            schema = told["anyOf"][0] if entry.default is None and "anyOf" in told else told
            if isinstance(entry.check, Whole):
                assert schema["minimum"] == entry.check.low
                assert schema["maximum"] == pytest.approx(entry.check.high)  # FastAPI writes it as a float
            elif isinstance(entry.check, Number):
                assert (schema["minimum"], schema["maximum"]) == (0, entry.check.high)
            elif isinstance(entry.check, Side):
                assert schema["multipleOf"] == 32 and schema["maximum"] == entry.check.high
            assert told.get("description", entry.help) == entry.help
        assert properties["solver"]["anyOf"][0]["enum"] == list(SOLVERS)


def test_no_field_of_a_request_is_forgotten(document: dict[str, Any]):
    properties = document["components"]["schemas"]["ImageRequest"]["properties"].keys()
    assert {entry.name for entry in request_fields()} == properties | {"source", "mask"}
