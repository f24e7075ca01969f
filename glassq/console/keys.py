"""The key of this installation's console, and what is signed with it.

The key is in a file for its owner alone. Who can read it can sign in; who removes it, ends all sessions.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassq.errors import SettingsError
from glassq.operations.places import beside_ledger

if TYPE_CHECKING:
    from glassq.settings import Settings

# Where the ledger is no file.
_DIRECTORY = Path("/var/lib/glassq/console")
_FILE = "key"
_SIZE = 32
# No token of ours is longer, in characters: what is longer is not looked at.
_LONGEST = 2_000


def state_directory(settings: Settings) -> Path:
    """Where the console keeps what outlives it: [console] state, else beside the ledger's file."""
    if settings.console.state:
        return Path(settings.console.state)
    return beside_ledger(settings, "console") or _DIRECTORY


class Key:
    """Signs small documents, each for one purpose, and reads them again."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @property
    def instance(self) -> str:
        """What tells this installation's cookies from those of others, in 8 hex digits. It says nothing of the key."""
        return self._mac("instance", b"").hex()[:8]

    def sign(self, purpose: str, document: dict[str, Any]) -> str:
        """The document as a text that nobody else can make, for a cookie or a link."""
        body = json.dumps(document, separators=(",", ":")).encode()
        return f"{_text(body)}.{_text(self._mac(purpose, body))}"

    def read(self, purpose: str, token: str) -> dict[str, Any] | None:
        """The document of a token that was signed for this purpose; None for any other text."""
        body_text, _, mac_text = token.partition(".")
        if len(token) > _LONGEST:
            return None
        try:
            body, mac = _bytes(body_text), _bytes(mac_text)
        except ValueError:
            return None
        if not hmac.compare_digest(self._mac(purpose, body), mac):
            return None
        document: dict[str, Any] = json.loads(body)
        return document

    def _mac(self, purpose: str, body: bytes) -> bytes:
        return hmac.digest(self._secret, f"glassq-console {purpose}\n".encode() + body, hashlib.sha256)


def open_key(directory: Path) -> Key:
    """The key in this directory; a new one is made where there is none. Raises SettingsError."""
    file = directory / _FILE
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            _make(file)
        with file.open("rb") as opened:
            found = os.fstat(opened.fileno())
            secret = opened.read(_SIZE + 1)
    except OSError as error:
        why = f"[console] state: {error.filename or directory}: {error.strerror}"
        raise SettingsError(f"{why}; name a directory that this user may write") from None
    strange = found.st_uid not in (0, os.geteuid()) and os.geteuid() != 0
    if stat.S_IMODE(found.st_mode) & 0o077 or strange:
        raise SettingsError(f"{file}: others may read it, and so sign in: remove it, and start again")
    if len(secret) != _SIZE:
        raise SettingsError(f"{file}: is no key of ours: remove it, and start again")
    return Key(secret)


def _make(file: Path) -> None:
    """Makes a key, whole or not at all. Raises FileExistsError where there is one."""
    if file.exists():
        raise FileExistsError
    new = file.with_name(f"{_FILE}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(secrets.token_bytes(_SIZE))
        if os.geteuid() == 0:
            # root's own console must not lock out the service's
            owner = file.parent.stat()
            os.fchown(opened.fileno(), owner.st_uid, owner.st_gid)
        opened.flush()
        os.fsync(opened.fileno())
    try:
        os.link(new, file)
    finally:
        new.unlink()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Raises ValueError, also for a text that is written in another way than ours."""
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _text(data) != text:
        raise ValueError(text)
    return data
