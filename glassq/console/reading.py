"""Reads the fields of a request: those of its query, and those of its form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from glassq.console.request import FormFields
from glassq.console.troubles import refused

if TYPE_CHECKING:
    import falcon

# Fields of a query or a form.
_MOST_FIELDS = 1_000
FORM, JSON = "application/x-www-form-urlencoded", "application/json"


def pairs(text: str) -> FormFields:
    """The fields of a query. Raises Refused."""
    try:
        return FormFields(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise refused(400, f"more than {_MOST_FIELDS} fields") from None


def kind_of(req: falcon.Request) -> str:
    """The media type of the body, without its parameters."""
    return (req.content_type or "").partition(";")[0].strip().lower()


def read_fields(req: falcon.Request) -> FormFields:
    """The fields of a POST; it can be read once. Raises Refused."""
    if not req.content_length:
        return FormFields()
    data = req.bounded_stream.read()
    if kind_of(req) != JSON:
        return pairs(data.decode("utf-8", "replace"))
    try:
        document = json.loads(data)
        given = {str(name): each if isinstance(each, list) else [each] for name, each in document.items()}
    except (ValueError, AttributeError, RecursionError):
        raise refused(400, "expected a JSON object whose values are texts, or lists of texts") from None
    found = [(name, each) for name, values in given.items() for each in values]
    if len(found) > _MOST_FIELDS or not all(isinstance(each, str) for _, each in found):
        raise refused(400, f"expected at most {_MOST_FIELDS} texts")
    try:
        "".join(each for pair in found for each in pair).encode()
    except UnicodeEncodeError:
        raise refused(400, "a text has half of a character (a lone surrogate)") from None
    return FormFields(found)
