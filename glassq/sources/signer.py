"""Makes signed pings of a source of the settings."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.errors import OperationError
from glassq.sources import samples
from glassq.sources.draft import Draft
from glassq.sources.opening import given_to_scheme, open_source, preset_of
from glassq.sources.places import parse_spec
from glassq.sources.schemes.base import NoDocuments
from glassq.sources.signing import sign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.settings import Settings
    from glassq.sources.base import Source
    from glassq.sources.places import Spec
    from glassq.sources.schemes.base import Scheme, SchemeConfig


@dataclass(frozen=True, slots=True)
class Signer:
    """Makes the pings of one source, for the raw `target`.

    `event` and `event_id` are the places of these labels; `key` is the sender's private key in PEM, where it has one.
    """

    source: Source
    scheme: Scheme
    given: SchemeConfig
    target: str
    event: Spec
    event_id: Spec
    key: bytes | None = None

    def sample(self, event: str, now: float) -> Draft:
        """A sample of an event ("": the usual one), not signed yet."""
        kind = self.source.kind
        sample = samples.sample(kind, event, now)
        headers = {name.lower(): value for name, value in sample.headers.items()} | {
            "content-type": sample.content_type
        }
        known = samples.events(kind)
        usual = known[0] if known else "sample"
        return self._labelled(Draft(self.target, headers, sample.body()), event or usual, anew=event not in known)

    def of_body(self, event: str, body: bytes, headers: Mapping[str, str]) -> Draft:
        """A ping with this body, which is not changed unless its event, its id or its proof stands in it."""
        kept = {"content-type": "application/json", **headers}
        return self._labelled(Draft(self.target, kept, body), event, anew=bool(event))

    def sign(self, draft: Draft, now: float) -> Draft:
        """The ping with its proof, made at this moment (Unix time). Raises OperationError."""
        try:
            return sign(self.scheme, self.given, draft, now, self.key)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise OperationError(f"the body has no room for the proof of {self.source.kind}: {error}") from None

    def labels(self, draft: Draft) -> dict[str, str]:
        """The labels that its delivery gets."""
        return self.source.describe(draft.request(0.0)).labels

    def _labelled(self, draft: Draft, event: str, *, anew: bool) -> Draft:
        """The draft with an event and an id where the source reads them; what is there stays, but for an event `anew`.

        A body that has no room for them goes without.
        """
        if event and self.event and (anew or not draft.read(self.event)):
            draft = draft.put_if_possible(self.event, event)
        if self.event_id and not draft.read(self.event_id):
            draft = draft.put_if_possible(self.event_id, str(uuid.uuid4()))
        return draft


def open_signer(settings: Settings, name: str, key: bytes | None = None) -> Signer:
    """The signer of this source. Raises SettingsError where it cannot be used, and OperationError for a custom one."""
    section, source, preset = settings.sources[name], open_source(settings, name), preset_of(settings, name)
    if section.custom is not None:
        raise OperationError(
            f"[sources.{name}] custom: only its own class knows how it is signed. "
            f"`glassq put FILE --source {name} --no-check` tries the handler"
        )
    target = f"/hooks/{name}"
    if section.path_token_file:
        target += f"/{settings.secret(f'sources.{name}.path_token_file')[0]}"
    return Signer(
        source,
        preset.scheme,
        given_to_scheme(settings, name, preset, NoDocuments()),
        target,
        parse_spec(preset.event if section.event is None else section.event),
        parse_spec(preset.event_id if section.event_id is None else section.event_id),
        key,
    )
