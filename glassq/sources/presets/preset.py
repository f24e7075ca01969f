"""A preset: all that glassq knows of a sender, as one row of data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from glassq.sources.base import Reply

if TYPE_CHECKING:
    from glassq.sources.schemes.base import Scheme

KIB, MIB = 1 << 10, 1 << 20
MINUTE, HOUR = 60.0, 3600.0


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """A sender: how it proves itself, and what documents, `glassq sources` and `glassq ping` say about it.

    `event`, `action` and `event_id` say where these labels are found (`glassq.sources.places`), `labels` where others
    are, `keep` which headers handlers get. `challenges` are names of `glassq.sources.challenges`. `tolerance` is in
    seconds, `max_body` in bytes (0: [intake] max_body).
    `content_types` are the media types that it takes; empty: any. `dedupe` says what makes two pings the same:
    their event_id, the digest of the body, or nothing ("", for senders of batches).
    `verified` is False where no test vector is known: its rule was only read.

    For people: `docs` is the sender's page, `secrets` what they are and where they are shown, `enter` where our URL is
    entered, `events` how events are named, `limits` size, timeout, and what the sender does when it is refused.
    """

    name: str
    title: str
    scheme: Scheme
    event: str = ""
    action: str = ""
    event_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    keep: tuple[str, ...] = ()
    challenges: tuple[str, ...] = ()
    accept: Reply = Reply()
    methods: tuple[str, ...] = ("POST",)
    content_types: tuple[str, ...] = ()
    dedupe: Literal["event_id", "sha256", ""] = "event_id"
    tolerance: float | None = None
    max_body: int = MIB
    verified: bool = True
    requires_network: bool = False
    handler: str = ""
    docs: str = ""
    secrets: str = ""
    enter: str = ""
    events: str = ""
    limits: str = ""
