"""The kinds of sources: all that is known of a sender, as values, and a section to begin with."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq.errors import InvalidRequest
from glassq.settings import toml_value
from glassq.sources import samples
from glassq.sources.presets import PRESETS

if TYPE_CHECKING:
    from glassq.sources.presets.preset import Preset

# What a section says for a key that the kind cannot do without.
_EXAMPLES = {
    "secrets_file": "/etc/glassq/secrets/{name}",
    "verify_tokens_file": "/etc/glassq/secrets/{name}",
    "verify_token_file": "/etc/glassq/secrets/{name}-verify",
    "path_token_file": "/etc/glassq/secrets/{name}-path",
    "url": "https://hooks.example.com",
    "account": "123456789012",
    "audience": "https://hooks.example.com/hooks/{name}",
    "issuer": "https://accounts.example.com",
    "webhook_id": "WH-ID-THAT-PAYPAL-SHOWS",
    "header": "X-Acme-Signature",
    "token": "bearer",
    "custom": "my_module:Acme",
}
UNVERIFIED = "unverified: its rule was read, and no signed ping of it was at hand"


@dataclass(frozen=True, slots=True)
class KindOfSource:
    """A kind, for people: what its preset says, and a `section` that can be pasted into the settings."""

    preset: Preset

    @property
    def needs(self) -> tuple[str, ...]:
        """The keys that its section cannot do without."""
        return tuple(self.preset.scheme.needs)

    @property
    def samples(self) -> tuple[str, ...]:
        """The events that `glassq ping` has samples of."""
        return samples.events(self.preset.name)

    @property
    def section(self) -> str:
        """An example of its section and of a route."""
        name = self.preset.name
        keys = [f"{key} = {toml_value(_EXAMPLES.get(key, '...').format(name=name))}" for key in self.needs]
        lines = [f"[sources.{name}]", *(keys or [f'kind = "{name}"'])]
        event = self.samples[0] if self.samples and self.preset.event else ""
        if self.preset.handler:
            # it confirms that we want pings, and the others are for a handler of one's own
            lines += _route(name, "SubscriptionConfirmation", self.preset.handler)
        return "\n".join([*lines, *_route(name, event, f"handlers:{name.replace('-', '_')}")])

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values; what is not known is left out."""
        row = self.preset
        proven = "by test vectors" if row.verified else UNVERIFIED
        named = [
            ("our URL", row.enter),
            ("the secret", row.secrets),
            ("events", row.events),
            ("samples", ", ".join(self.samples)),
            ("limits", row.limits),
            ("needs", ", ".join(self.needs)),
            ("tolerance", f"{row.tolerance:g} s" if row.tolerance else ""),
            ("largest body", f"{row.max_body >> 10} KiB" if row.max_body else "[intake] max_body"),
            ("duplicates", {"event_id": "by the label event_id", "sha256": "by the body's digest"}.get(row.dedupe, "")),
            ("headers kept", ", ".join(row.keep)),
            ("verified", proven),
            ("manual", row.docs),
        ]
        return [(name, value) for name, value in named if value]

    def document(self) -> dict[str, Any]:
        """The kind for JSON."""
        row = self.preset
        told = {"kind": row.name, "title": row.title, "verified": row.verified, "needs": list(self.needs)}
        return {**told, "samples": list(self.samples), "facts": dict(self.facts), "section": self.section}


def _route(source: str, event: str, handler: str) -> list[str]:
    match = [f"match = {{ event = {toml_value(event)} }}"] if event else []
    return ["", "[[routes]]", f'source = "{source}"', *match, f'handler = "{handler}"']


def kinds() -> list[KindOfSource]:
    """All kinds, sorted by their names."""
    return [KindOfSource(PRESETS[name]) for name in sorted(PRESETS)]


def kind(name: str) -> KindOfSource:
    """One kind. Raises InvalidRequest, with a near name."""
    if name in PRESETS:
        return KindOfSource(PRESETS[name])
    near = difflib.get_close_matches(name.lower(), PRESETS, n=1)
    general = 'kind = "hmac" or "token" fits most others'
    meant = f"did you mean {near[0]}?" if near else f"`glassq sources kinds` lists them; {general}"
    raise InvalidRequest(f"there is no kind {name}; {meant}")
