"""Sources as a user writes them, in a glassq.toml, and requests to them."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from glassq.settings import parse, toml_value
from glassq.sources import HookRequest, open_sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.sources import Source

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors.json").read_text("utf-8"))
# The time of a vector that signs none.
NOON = 1_700_000_000.0


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Source]:
    """Makes a source: see `opener`."""
    return opener(tmp_path)


def opener(directory: Path) -> Callable[..., Source]:
    """Makes sources of keys of glassq.toml; `secrets` and each list for a key ..._file go into files, one a line."""
    numbers = itertools.count()

    def make(kind: str, secrets: list[str] | None = None, name: str = "it", **keys: Any) -> Source:
        if secrets:
            keys["secrets_file"] = secrets
        lines = [f"[sources.{name}]", f"kind = {toml_value(kind)}"]
        for key, value in keys.items():
            if key.endswith("_file"):
                file = directory / f"{key}-{next(numbers)}"
                file.write_text("\n".join(value) + "\n")
                value = file
            lines.append(f"{key} = {toml_value(tuple(value) if isinstance(value, list) else value)}")
        (source,) = open_sources(parse("\n".join(lines), "glassq.toml"))
        return source

    return make


def request_of(vector: dict[str, Any]) -> HookRequest:
    """The request of a vector."""
    body = vector["body"]
    parts = urlsplit(vector.get("url") or "https://hooks.example.com/hooks/it")
    return HookRequest(
        method=vector["method"],
        target=parts.path + (f"?{parts.query}" if parts.query else ""),
        headers={name.lower(): value for name, value in vector["headers"].items()},
        body=base64.b64decode(body) if vector.get("body_base64") else body.encode(),
        peer="192.0.2.7",
        now=vector.get("now", NOON),
    )


def source_of(vector: dict[str, Any], opened: Callable[..., Source]) -> Source:
    """The source of a vector, with what its kind needs."""
    keys = dict(vector.get("settings", {}))
    if "url" in vector:
        parts = urlsplit(vector["url"])
        keys["url"] = f"{parts.scheme}://{parts.netloc}"
    secrets = vector["secrets"] or ["any"]
    if vector["kind"] == "meta" and vector["method"] == "GET":
        keys["verify_token_file"], secrets = secrets, ["any"]
    return opened(vector["kind"], secrets, **keys)
