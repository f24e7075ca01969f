"""Every vector, through a section of glassq.toml as a user would write it.

`source` of a vector says where it is from; "derived" ones have a digest that openssl's command line computed.
"""

from __future__ import annotations

import json
import mmap
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from glassq.errors import PingRefused
from glassq.sources.generic import GENERIC
from glassq.sources.presets import PRESETS
from tests.sources.conftest import VECTORS, request_of, source_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from glassq.sources import Reply, Source

# These need certificates, and are tried where those are.
ELSEWHERE = {"sns", "paypal"}
HERE = [vector for vector in VECTORS if vector["kind"] in {*PRESETS, *GENERIC} - ELSEWHERE]


@pytest.mark.parametrize("vector", [each for each in HERE if "answer" not in each], ids=lambda each: each["name"])
def test_a_ping_is_genuine_or_not(vector: dict[str, Any], opened: Callable[..., Source]) -> None:
    source, request = source_of(vector, opened), request_of(vector)
    if vector["valid"]:
        assert 0 <= source.verify(request).secret < source.secrets
    else:
        with pytest.raises(PingRefused) as refused:
            source.verify(request)
        assert refused.value.status == 401


@pytest.mark.parametrize(
    "vector", [each for each in HERE if each["valid"] and each["body"]], ids=lambda each: each["name"]
)
def test_a_body_that_lies_on_disk_is_read_alike(
    vector: dict[str, Any], opened: Callable[..., Source], tmp_path: Path
) -> None:
    request = request_of(vector)
    (tmp_path / "body").write_bytes(request.body)
    with (tmp_path / "body").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    lying = msgspec.structs.replace(request, body=mapped)
    assert source_of(vector, opened).verify(lying) == source_of(vector, opened).verify(request)
    assert source_of(vector, opened).describe(lying) == source_of(vector, opened).describe(request)


@pytest.mark.parametrize("vector", [each for each in HERE if "labels" in each], ids=lambda each: each["name"])
def test_its_labels_are_read(vector: dict[str, Any], opened: Callable[..., Source]) -> None:
    told = source_of(vector, opened).describe(request_of(vector))
    assert vector["labels"].items() <= told.labels.items()
    assert told.unread == ()


@pytest.mark.parametrize("vector", [each for each in HERE if "answer" in each], ids=lambda each: each["name"])
def test_a_challenge_is_answered(vector: dict[str, Any], opened: Callable[..., Source]) -> None:
    source, request, wanted = source_of(vector, opened), request_of(vector), vector["answer"]
    if not vector["valid"]:
        with pytest.raises(PingRefused) as refused:
            source.challenge(request)
        assert refused.value.status == wanted["status"]
        return
    answer = source.challenge(request)
    if answer is None:
        source.verify(request)
        answer = source.reply(request)
    assert answer is not None
    assert request.method in source.methods
    _hold(answer, wanted)


def _hold(answer: Reply, wanted: dict[str, Any]) -> None:
    assert answer.status == wanted["status"]
    assert answer.content_type.startswith(wanted.get("content_type", ""))
    assert {name.lower() for name in wanted.get("headers", {})} <= {name.lower() for name, _ in answer.headers}
    if "json" in wanted:
        assert json.loads(answer.body) == wanted["json"]
    else:
        assert answer.body.decode() == wanted.get("body", "")


def test_every_preset_has_a_vector() -> None:
    tried = {vector["kind"] for vector in VECTORS if vector["valid"] and "answer" not in vector}
    # Mirror's are in test_mirror.py, tokens are made in test_jwt.py, and Discord signs all in one way
    assert set(PRESETS) - tried == {"mirror", "pubsub", "oidc", "discord-events"}
