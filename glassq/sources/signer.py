"""Makes signed pings of a source of the settings."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.errors import OperationError
from glassq.sources import mirror, samples
from glassq.sources.draft import Draft
from glassq.sources.opening import open_sources, preset_of
from glassq.sources.places import parse_spec
from glassq.sources.signing import sign

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

    from glassq.settings import Settings
    from glassq.sources.base import Source
    from glassq.sources.presets.preset import Preset
    from glassq.sources.schemes.base import Given


@dataclass(frozen=True, slots=True)
class Signer:
    """Makes the pings of one source. `key` is the sender's private key in PEM, for kinds that need one."""

    source: Source
    target: str
    preset: Preset | None
    given: Given
    key: bytes | None = None

    def sample(self, event: str, now: float) -> Draft:
        """A sample of an event ("": the usual one), not signed yet."""
        kind = self.source.kind
        sample = samples.sample(kind, event, now)
        headers = {name.lower(): value for name, value in sample.headers.items()} | {"content-type": sample.content_type}
        draft = Draft(self.target, headers, sample.body())
        known = samples.events(kind)
        return self._labelled(draft, event or (known[0] if known else "sample"), again=event not in known)

    def of_body(self, event: str, body: bytes, headers: Mapping[str, str]) -> Draft:
        """A ping with this body, which is not changed unless its proof stands in it."""
        kept = {"content-type": "application/json", **headers}
        return self._labelled(Draft(self.target, kept, body), event, again=bool(event))

    def sign(self, draft: Draft, now: float) -> Draft:
        """The ping with its proof, made at this moment (Unix time). Raises OperationError."""
        try:
            if self.preset is None:
                return draft.put_json(("verifyToken",), self.given.secrets[0])
            return sign(self.preset.scheme, self.given, draft, now, self.key)
        except (ValueError, LookupError, TypeError) as error:
            raise OperationError(f"the body has no room for the proof of {self.source.kind}: {error}") from None

    def labels(self, draft: Draft) -> dict[str, str]:
        """The labels that its delivery gets."""
        return self.source.describe(draft.request(0.0)).labels

    def _labelled(self, draft: Draft, event: str, *, again: bool) -> Draft:
        """The draft with the event and an id where the source reads them; an event that is there stays, unless `again`."""
        if self.preset is None:
            return draft
        where, where_id = parse_spec(self.preset.event), parse_spec(self.preset.event_id)
        if event and where and (again or not draft.read(where)):
            draft = draft.put(where, event)
        if where_id and not draft.read(where_id):
            draft = draft.put(where_id, str(uuid.uuid4()))
        return draft


def open_signer(settings: Settings, name: str, key: bytes | None = None) -> Signer:
    """The signer of this source. Raises SettingsError where it cannot be used, and OperationError for a custom one."""
    import msgspec

    section = settings.sources[name]
    (source,) = open_sources(msgspec.structs.replace(settings, sources={name: section}))
    if section.custom is not None:
        raise OperationError(f"[sources.{name}] custom: its own module alone knows how it signs")
    target = f"/hooks/{name}"
    if section.path_token_file:
        target += f"/{settings.secret(f'sources.{name}.path_token_file')[0]}"
    if source.kind == mirror.KIND:
        ...
    preset, given = preset_of(settings, name)
    return Signer(source, target, preset, given, key)
