"""The kinds of sources: all that is known of a sender, as values, and a section to begin with."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassq.errors import InvalidRequest
from glassq.settings import toml_value
from glassq.sources import samples
from glassq.sources.presets import PRESETS
from glassq.sources.schemes.public_key import PublicKey
from glassq.sources.schemes.standard import Standard
from glassq.sources.schemes.token import ShownToken

if TYPE_CHECKING:
    from glassq.settings import Settings
    from glassq.sources.presets.preset import Preset

# Where an installed glassq has its secrets.
INSTALLED = Path("/etc/glassq/secrets")
# What a section says for a key that the kind cannot do without.
_EXAMPLES = {
    "secrets_file": "{secret}",
    "verify_tokens_file": "{secret}",
    "verify_token_file": "{secret}-verify",
    "path_token_file": "{secret}-path",
    "url": "https://hooks.example.com",
    "account": "123456789012",
    "audience": "https://hooks.example.com/hooks/{name}",
    "issuer": "https://accounts.example.com",
    "webhook_id": "WH-ID-THAT-PAYPAL-SHOWS",
    "header": "X-Acme-Signature",
    "token": "bearer",
    "custom": "my_module:Acme",
}
# Commands that make a secret: most senders take any text, those of Standard Webhooks a key in base64; HTTP Basic is a
# user and a password.
_BASIC = 'echo "glassq:$(openssl rand -hex 32)"'
_ANY_TEXT = "openssl rand -hex 32"
_STANDARD = 'echo "whsec_$(openssl rand -base64 32)"'
# Kinds that are no sender: how to describe one's own.
_GENERAL = ("hmac", "token", "none", "custom")
UNVERIFIED = "unverified: its rule was read, and no signed ping of it was at hand"


@dataclass(frozen=True, slots=True)
class KindOfSource:
    """A kind, for people: what its preset says, and a `section` that can be pasted into the settings.

    `secrets` is the directory of the settings' secrets.
    """

    preset: Preset
    secrets: Path = INSTALLED

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
        values = {key: _EXAMPLES.get(key, "...").format(name=name, secret=self._secret) for key in self.needs}
        keys = [f"{key} = {toml_value(value)}" for key, value in values.items()]
        lines = [f"[sources.{name}]", *(keys or [f'kind = "{name}"'])]
        event = self.samples[0] if self.samples and self.preset.event else ""
        if self.preset.handler:
            # it confirms that we want pings, and the others are for a handler of one's own
            lines += _route(name, "SubscriptionConfirmation", self.preset.handler)
        return "\n".join([*lines, *_route(name, event, f"handlers:{name.replace('-', '_')}")])

    @property
    def trial(self) -> str:
        """A command that makes a secret to try it with; "" where only the sender has the key, or for real pings."""
        if self.secrets == INSTALLED or not set(self.needs) & {"secrets_file", "verify_tokens_file"}:
            return ""
        if isinstance(self.preset.scheme, PublicKey):
            return ""
        scheme = self.preset.scheme
        makes = _STANDARD if isinstance(scheme, Standard) else _ANY_TEXT
        makes = _BASIC if isinstance(scheme, ShownToken) and "basic" in scheme.place else makes
        return f"(umask 077; {makes} > {shlex.quote(self._secret)})"

    @property
    def _secret(self) -> str:
        """The path of its file of secrets, named as those that `glassq dev` and an installed glassq have."""
        name = self.preset.name
        return str(self.secrets / (name if self.secrets == INSTALLED else f"{name}-secret"))

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


def secrets_directory(settings: Settings) -> Path:
    """The directory of the secrets that these settings name: where the next one belongs."""
    files = (source.secrets_file or source.verify_tokens_file for source in settings.sources.values())
    return next((Path(file).parent for file in files if file), INSTALLED)


def _route(source: str, event: str, handler: str) -> list[str]:
    match = [f"match = {{ event = {toml_value(event)} }}"] if event else []
    return ["", "[[routes]]", f'source = "{source}"', *match, f'handler = "{handler}"']


def kinds() -> list[KindOfSource]:
    """All kinds, sorted by their names."""
    return [KindOfSource(PRESETS[name]) for name in sorted(PRESETS)]


def kind(name: str, secrets: Path = INSTALLED) -> KindOfSource:
    """One kind, for settings whose secrets are in this directory. Raises InvalidRequest, with a near name."""
    if name in PRESETS:
        return KindOfSource(PRESETS[name], secrets)
    if name in _GENERAL:
        raise InvalidRequest(f'{name} is no sender: kind = "{name}" describes one of your own, see docs/sources.md')
    near = difflib.get_close_matches(name.lower(), PRESETS, n=1)
    general = 'kind = "hmac" or "token" fits most others'
    meant = f"did you mean {near[0]}?" if near else f"`glassq sources kinds` lists them; {general}"
    raise InvalidRequest(f"there is no kind {name}; {meant}")
