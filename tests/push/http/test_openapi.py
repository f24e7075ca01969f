"""docs/openapi-tasks.yaml has the fields that are read; conftest.py holds every answer of these tests to it."""

from __future__ import annotations

from typing import Any

import pytest

from glassq.push.http import messages
from glassq.push.http.short import _WORDS
from glassq.push.http.values import METHODS
from tests.push.http.conftest import DOCUMENT

SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ("Task", messages.TaskMessage),
        ("HttpRequest", messages.HttpRequestMessage),
        ("AppEngineHttpRequest", messages.AppEngineMessage),
        ("RetryConfig", messages.RetryMessage),
        ("Short", messages.ShortMessage),
    ],
)
def test_the_document_has_the_fields_that_are_read(schema: str, kind: type[messages.Message]) -> None:
    assert set(SCHEMAS[schema]["properties"]) == set(kind.__struct_encode_fields__)


def test_the_document_has_the_methods_and_headers_that_are_read() -> None:
    assert SCHEMAS["HttpRequest"]["properties"]["httpMethod"]["enum"] == list(METHODS[1:])
    headers = {given["name"] for given in DOCUMENT["paths"]["/tasks/{queue}/{task}"]["post"]["parameters"]}
    assert headers == {word.replace("_", "-").title() for word in _WORDS}
