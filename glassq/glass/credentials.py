"""Users' consents on disk: one encrypted file for each user.

A file's name is the SHA-256 of the user id, so that no id from outside becomes part of a path. Its content is encrypted
with Fernet. While keys are rotated there are several, and the first one encrypts. Files are replaced as a whole, so
readers need no lock. Writers hold one, because two processes may learn different things about a user at the same time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from glassq.errors import CredentialsError, SettingsError, UserRevoked, UserUnknown
from glassq.files import sync_directory, write_durably
from glassq.glass.google_files import read_authorized_user as read_authorized_user  # where programs look for it
from glassq.glass.names import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.settings import Settings

_FILE = re.compile(r"[0-9a-f]{64}")


class StoredCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """One user's consent. `updated` is the time of its last change (UTC)."""

    user: str
    refresh_token: str
    scopes: tuple[str, ...] = ()
    state: Literal["active", "revoked"] = "active"
    updated: datetime

    def __repr__(self) -> str:
        return f"StoredCredentials(user={self.user!r}, state={self.state!r}, updated={self.updated!r})"


class Listing(NamedTuple):
    """All users of a store, by user id, and an error for each file that cannot be read."""

    users: list[StoredCredentials]
    damaged: list[CredentialsError]


class CredentialStore:
    """The consents in `directory`. `keys` are Fernet keys: the first one encrypts, every one decrypts.

    The directory is made (mode 0700) when the first user is added. Every method raises CredentialsError if the file
    system refuses; its cause is then the OSError.
    """

    def __init__(self, directory: str | Path, keys: Sequence[str]) -> None:
        """Raises CredentialsError for a malformed key."""
        self._directory = Path(directory)
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise CredentialsError("a key is not 32 bytes in URL-safe base64, as new_key() makes them") from None

    @classmethod
    def open(cls, settings: Settings) -> CredentialStore:
        """The store that the settings name. Raises SettingsError if the key file cannot be used."""
        keys = settings.secret("glass.credentials_key_file")
        try:
            return cls(settings.glass.credentials, keys)
        except CredentialsError as error:
            file = settings.glass.credentials_key_file
            raise SettingsError(f'{settings.file}: [glass] credentials_key_file = "{file}": {error}') from None

    def add(self, user: str, refresh_token: str, scopes: Sequence[str] = ()) -> StoredCredentials:
        """Stores a fresh consent. It replaces any older one, also a damaged one."""
        if not user or not refresh_token:
            raise CredentialsError("a user id and a refresh token must not be empty")
        if not (user.isprintable() and refresh_token.isprintable()):
            raise CredentialsError("a user id and a refresh token must be printable text")
        fresh = StoredCredentials(user=user, refresh_token=refresh_token, scopes=tuple(scopes), updated=_now())
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CredentialsError(f"{self._directory}: cannot be made: {error.strerror}") from error
        with self._locked():
            self._write(fresh)
        return fresh

    def get(self, user: str) -> StoredCredentials:
        """The user's consent. Raises UserUnknown, UserRevoked, or CredentialsError for a file that cannot be read."""
        stored = self._find(user)
        if stored is None:
            raise UserUnknown(f"there are no credentials for user {shown(user)}: add them with glassq users add")
        if stored.state == "revoked":
            raise UserRevoked(f"user {shown(user)} has revoked the consent: a new one is needed (glassq users add)")
        return stored

    def list(self) -> Listing:
        """All users, including revoked ones. A damaged file does not hide the others."""
        users: list[StoredCredentials] = []
        damaged: list[CredentialsError] = []
        try:
            paths = sorted(path for path in self._directory.iterdir() if _FILE.fullmatch(path.name))
        except FileNotFoundError:
            paths = []
        except OSError as error:
            raise CredentialsError(f"{self._directory}: cannot be listed: {error.strerror}") from error
        for path in paths:
            try:
                stored = self._read(path)
            except CredentialsError as error:
                damaged.append(error)
            else:
                users += [stored] if stored else []
        return Listing(sorted(users, key=lambda stored: stored.user), damaged)

    def remove(self, user: str) -> bool:
        """Removes the user; returns False if nothing was stored. A damaged file is removed as well."""
        if not self._directory.is_dir():
            return False
        with self._locked():
            try:
                self._path(user).unlink()
            except FileNotFoundError:
                return False
            sync_directory(self._directory)
        return True

    def mark_revoked(self, user: str, refresh_token: str) -> bool:
        """Marks the user's consent as revoked, if `refresh_token` is still the stored one.

        Returns False if it is not: there is a fresh consent meanwhile, or none at all.
        """
        return self._replace(user, refresh_token, state="revoked")

    def rotate(self, user: str, old: str, new: str) -> bool:
        """Stores the refresh token `new`, if `old` is still the stored one; else returns False."""
        return self._replace(user, old, refresh_token=new)

    def _replace(self, user: str, expected: str, **changes: str) -> bool:
        if not self._directory.is_dir():
            return False
        with self._locked():
            stored = self._find(user)
            if stored is None or stored.refresh_token != expected:
                return False
            self._write(msgspec.structs.replace(stored, updated=_now(), **changes))
        return True

    def _path(self, user: str) -> Path:
        return self._directory / hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()

    def _find(self, user: str) -> StoredCredentials | None:
        stored = self._read(self._path(user), f" (user {shown(user)})")
        if stored and stored.user != user:
            raise CredentialsError(f"{self._path(user)}: is the file of another user: remove it and add the user again")
        return stored

    def _read(self, path: Path, whose: str = "") -> StoredCredentials | None:
        try:
            return msgspec.json.decode(self._fernet.decrypt(path.read_bytes()), type=StoredCredentials)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CredentialsError(f"{path}{whose}: cannot be read: {error.strerror}") from error
        except InvalidToken:
            raise CredentialsError(
                f"{path}{whose}: cannot be decrypted: either its key is missing from credentials_key_file (put it "
                "back, below the newest), or the file is damaged (add the user again)"
            ) from None
        except msgspec.MsgspecError:
            raise CredentialsError(f"{path}{whose}: holds no credentials: add the user again") from None

    def _write(self, stored: StoredCredentials) -> None:
        # Only the holder of the lock uses this name. A file that is there was left by a process that was killed.
        aside = self._directory / ".new"
        try:
            aside.unlink(missing_ok=True)
            data = self._fernet.encrypt(msgspec.json.encode(stored))
            write_durably(self._path(stored.user), data, aside=aside)
        except OSError as error:
            raise CredentialsError(f"{self._path(stored.user)}: cannot be written: {error.strerror}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            descriptor = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise CredentialsError(f"{self._directory}: cannot be locked: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def new_key() -> str:
    """A new key for the credentials key file: one line of text."""
    return Fernet.generate_key().decode("ascii")


def _now() -> datetime:
    return datetime.now(UTC)
