"""Users' consents: one encrypted record for each user, in a directory or in a database (records.py).

A record's name is the SHA-256 of the user id, so that no id from outside becomes part of a path. Its content is
encrypted with Fernet. While keys are rotated there are several, and the first one encrypts. A writer holds a record
while it reads and replaces it, because two processes, perhaps of two hosts, may learn different things about a user.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from glassq.errors import CredentialsError, SettingsError, UserRevoked, UserUnknown
from glassq.glass.google_files import read_authorized_user as read_authorized_user  # where programs look for it
from glassq.glass.names import shown
from glassq.glass.record_files import RecordFiles
from glassq.values import is_postgres

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.glass.record_files import HeldRecords, Records
    from glassq.settings import Settings


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
    """All users of a store, by user id, and an error for each record that cannot be read."""

    users: list[StoredCredentials]
    damaged: list[CredentialsError]


class CredentialStore:
    """The consents in `place`: a directory, or the database of a URL. It is made when the first user is added.

    `keys` are Fernet keys: the first one encrypts, every one decrypts. Every method raises CredentialsError if the file
    system or the database refuses; its cause is then the OSError or QueueError.
    """

    def __init__(self, place: str | Path, keys: Sequence[str]) -> None:
        """Raises CredentialsError for a malformed key."""
        self._records = _records(place)
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
        self._records.prepare()
        with self._records.held(_name_of(user)) as held:
            self._write(held, fresh)
        return fresh

    def get(self, user: str) -> StoredCredentials:
        """The user's consent. Raises UserUnknown, UserRevoked, or CredentialsError for one that cannot be read."""
        stored = self._find(self._records, user)
        if stored is None:
            raise UserUnknown(f"there are no credentials for user {shown(user)}: add them with glassq users add")
        if stored.state == "revoked":
            raise UserRevoked(f"user {shown(user)} has revoked the consent: a new one is needed (glassq users add)")
        return stored

    def list(self) -> Listing:
        """All users, including revoked ones. A damaged record does not hide the others."""
        users: list[StoredCredentials] = []
        damaged: list[CredentialsError] = []
        for name in self._records.names():
            try:
                stored = self._read(self._records, name)
            except CredentialsError as error:
                damaged.append(error)
            else:
                users += [stored] if stored else []
        return Listing(sorted(users, key=lambda stored: stored.user), damaged)

    def remove(self, user: str) -> bool:
        """Removes the user; returns False if nothing was stored. A damaged record is removed as well."""
        if not self._records.exists():
            return False
        with self._records.held(_name_of(user)) as held:
            return held.remove(_name_of(user))

    def mark_revoked(self, user: str, refresh_token: str) -> bool:
        """Marks the user's consent as revoked, if `refresh_token` is still the stored one.

        Returns False if it is not: there is a fresh consent meanwhile, or none at all.
        """
        return self._replace(user, refresh_token, state="revoked")

    def rotate(self, user: str, old: str, new: str) -> bool:
        """Stores the refresh token `new`, if `old` is still the stored one; else returns False."""
        return self._replace(user, old, refresh_token=new)

    def _replace(self, user: str, expected: str, **changes: str) -> bool:
        if not self._records.exists():
            return False
        with self._records.held(_name_of(user)) as held:
            stored = self._find(held, user)
            if stored is None or stored.refresh_token != expected:
                return False
            self._write(held, msgspec.structs.replace(stored, updated=_now(), **changes))
        return True

    def _find(self, records: Records | HeldRecords, user: str) -> StoredCredentials | None:
        name = _name_of(user)
        stored = self._read(records, name, f" (user {shown(user)})")
        if stored and stored.user != user:
            place = self._records.place(name)
            raise CredentialsError(f"{place}: is the file of another user: remove it and add the user again")
        return stored

    def _read(self, records: Records | HeldRecords, name: str, whose: str = "") -> StoredCredentials | None:
        data = records.read(name)
        if data is None:
            return None
        place = f"{self._records.place(name)}{whose}"
        try:
            return msgspec.json.decode(self._fernet.decrypt(data), type=StoredCredentials)
        except InvalidToken:
            raise CredentialsError(
                f"{place}: cannot be decrypted: either its key is missing from credentials_key_file (put it "
                "back, below the newest), or the file is damaged (add the user again)"
            ) from None
        except msgspec.MsgspecError:
            raise CredentialsError(f"{place}: holds no credentials: add the user again") from None

    def _write(self, held: HeldRecords, stored: StoredCredentials) -> None:
        held.write(_name_of(stored.user), self._fernet.encrypt(msgspec.json.encode(stored)))


def _records(place: str | Path) -> Records:
    if is_postgres(str(place)):
        # imported here: only this one needs a database's library
        from glassq.glass.record_table import RecordTable

        return RecordTable(str(place))
    return RecordFiles(Path(place))


def _name_of(user: str) -> str:
    """The name of a user's record."""
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> str:
    """A new key for the credentials key file: one line of text."""
    return Fernet.generate_key().decode("ascii")


def _now() -> datetime:
    return datetime.now(UTC)
