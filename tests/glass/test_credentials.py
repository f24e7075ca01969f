from __future__ import annotations

import fcntl
import multiprocessing
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from glassq.errors import CredentialsError, Retry, SettingsError, UserRevoked, UserUnknown
from glassq.glass.credentials import CredentialStore, new_key
from glassq.glass.verdicts import verdict
from glassq.settings import parse

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgresServer

KEY = new_key()


@pytest.fixture
def store(tmp_path: Path) -> CredentialStore:
    return CredentialStore(tmp_path / "credentials", [KEY])


@pytest.fixture(params=["directory", "table"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be; nothing is there yet."""
    if request.param == "directory":
        return str(tmp_path / "credentials")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url(server.database()).whole


def files(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "credentials").iterdir() if not path.name.startswith("."))


def test_a_stored_consent_comes_back_also_in_another_process(place: str) -> None:
    CredentialStore(place, [KEY]).add("115", "refresh-1", ["scope"])
    again = CredentialStore(place, [KEY]).get("115")
    assert (again.user, again.refresh_token, again.scopes, again.state) == ("115", "refresh-1", ("scope",), "active")


def test_neither_user_nor_token_can_be_read_off_the_disk(store: CredentialStore, tmp_path: Path) -> None:
    store.add("../../etc/passwd", "refresh-1")
    (file,) = files(tmp_path)
    assert len(file.name) == 64
    assert b"refresh-1" not in file.read_bytes()
    assert b"passwd" not in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert store.get("../../etc/passwd").refresh_token == "refresh-1"


def test_tokens_do_not_show_in_a_repr(store: CredentialStore) -> None:
    assert "refresh-1" not in repr(store.add("115", "refresh-1"))


def test_an_unknown_user_is_named(store: CredentialStore) -> None:
    with pytest.raises(UserUnknown, match="user 115"):
        store.get("115")
    store.add("116", "refresh")
    with pytest.raises(UserUnknown, match="user 115"):
        store.get("115")


def test_a_revoked_user_is_told_from_an_unknown_one_until_a_fresh_consent(store: CredentialStore) -> None:
    store.add("115", "old")
    assert store.mark_revoked("115", "old")
    with pytest.raises(UserRevoked, match="user 115"):
        store.get("115")
    assert store.list().users[0].state == "revoked"
    store.add("115", "new")
    assert store.get("115").refresh_token == "new"


def test_a_fresh_consent_is_not_overwritten_by_news_about_the_old_one(store: CredentialStore) -> None:
    store.add("115", "fresh")
    assert not store.mark_revoked("115", "old")
    assert not store.rotate("115", "old", "rotated")
    assert store.get("115").refresh_token == "fresh"


def test_a_rotated_refresh_token_replaces_the_old_one(store: CredentialStore) -> None:
    store.add("115", "old", ["scope"])
    assert store.rotate("115", "old", "new")
    stored = store.get("115")
    assert (stored.refresh_token, stored.scopes) == ("new", ("scope",))


def test_news_about_a_removed_user_changes_nothing(store: CredentialStore) -> None:
    assert not store.mark_revoked("115", "old")
    store.add("115", "old")
    assert store.remove("115")
    assert not store.remove("115")
    assert not store.rotate("115", "old", "new")
    assert store.list().users == []


def test_removing_from_a_store_that_was_never_used_is_no_error(store: CredentialStore) -> None:
    assert not store.remove("115")
    assert store.list() == ([], [])


def test_one_damaged_file_does_not_hide_the_other_users(store: CredentialStore, tmp_path: Path) -> None:
    store.add("115", "a")
    (file,) = files(tmp_path)
    store.add("116", "b")
    file.write_bytes(file.read_bytes()[:-10])
    users, damaged = store.list()
    assert [user.user for user in users] == ["116"]
    assert file.name in str(damaged[0])
    with pytest.raises(CredentialsError, match=r"user 115.*add the user again"):
        store.get("115")


def test_a_damaged_file_can_be_mended_by_adding_or_removing_the_user(store: CredentialStore, tmp_path: Path) -> None:
    store.add("115", "a")
    files(tmp_path)[0].write_bytes(b"")
    store.add("115", "b")
    assert store.get("115").refresh_token == "b"
    files(tmp_path)[0].write_bytes(b"")
    assert store.remove("115")


def test_the_file_of_one_user_cannot_stand_in_for_another(store: CredentialStore, tmp_path: Path) -> None:
    store.add("115", "a")
    (first,) = files(tmp_path)
    store.add("116", "b")
    (second,) = (file for file in files(tmp_path) if file != first)
    second.write_bytes(first.read_bytes())
    with pytest.raises(CredentialsError, match="another user"):
        store.get("116")


def test_keys_can_be_rotated_the_first_encrypts_and_every_one_decrypts(store: CredentialStore, tmp_path: Path) -> None:
    fresh = new_key()
    store.add("115", "a")
    both = CredentialStore(tmp_path / "credentials", [fresh, KEY])
    assert both.get("115").refresh_token == "a"
    both.rotate("115", "a", "b")
    assert CredentialStore(tmp_path / "credentials", [fresh]).get("115").refresh_token == "b"
    with pytest.raises(CredentialsError, match="credentials_key_file"):
        store.get("115")


def test_what_a_killed_writer_left_behind_is_in_nobodys_way(store: CredentialStore, tmp_path: Path) -> None:
    store.add("115", "a")
    (tmp_path / "credentials" / ".new").write_bytes(b"half a consen")
    assert store.rotate("115", "a", "b")
    assert store.get("115").refresh_token == "b"
    assert [user.user for user in store.list().users] == ["115"]


def test_text_that_could_not_be_written_or_shown_is_refused(store: CredentialStore) -> None:
    for user, token in (("", "t"), ("u", ""), ("u\n", "t"), ("\ud800", "t"), ("u", "t\n")):
        with pytest.raises(CredentialsError):
            store.add(user, token)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CredentialsError, match="file/credentials"):
        CredentialStore(tmp_path / "file" / "credentials", [KEY]).add("115", "a")


def test_a_key_that_is_none_is_refused_with_its_file_and_without_itself(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("not-a-key\n")
    settings = parse(f'[glass]\ncredentials_key_file = "{key_file}"', "glassq.toml")
    with pytest.raises(SettingsError, match="credentials_key_file") as caught:
        CredentialStore.open(settings)
    assert str(key_file) in str(caught.value)
    assert "not-a-key" not in str(caught.value)


def test_in_a_table_they_are_as_secret_and_as_lasting_as_in_files(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.database())
    store = CredentialStore(url.whole, [KEY])
    assert (store.list(), store.remove("115"), store.rotate("115", "a", "b")) == (([], []), False, False)
    with pytest.raises(UserUnknown, match="user 115"):
        store.get("115")
    store.add("115", "refresh-1")
    store.add("116", "refresh-2")
    rows = postgres.execute("SELECT name, data FROM glassq_credentials", url.rpartition("/")[2])
    assert not any(b"refresh" in bytes(data) or b"115" in bytes(data) for _, data in rows)  # type: ignore[call-overload]
    assert store.mark_revoked("115", "refresh-1")
    with pytest.raises(UserRevoked):
        store.get("115")
    assert [user.user for user in store.list().users] == ["115", "116"]
    assert store.remove("115")
    assert [user.user for user in CredentialStore(url.whole, [KEY]).list().users] == ["116"]


def test_a_database_that_is_away_is_no_wrong_consent(postgres: PostgresServer) -> None:
    store = CredentialStore(postgres.url("nowhere").whole, [KEY])
    with pytest.raises(CredentialsError, match="nowhere") as caught:
        store.get("115")
    assert isinstance(verdict(caught.value, "asking"), Retry)


def _rotate_to(place: str, key: str, name: int) -> None:
    raise SystemExit(0 if CredentialStore(place, [key]).rotate("115", "old", f"new-{name}") else 1)


def test_of_processes_that_rotate_at_once_exactly_one_wins(place: str) -> None:
    store = CredentialStore(place, [KEY])
    store.add("115", "old")
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=_rotate_to, args=(place, KEY, name)) for name in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    winners = [name for name, racer in enumerate(racers) if racer.exitcode == 0]
    assert len(winners) == 1
    assert store.get("115").refresh_token == f"new-{winners[0]}"


def test_a_writer_waits_for_the_lock_and_then_sees_what_was_written_meanwhile(
    store: CredentialStore, tmp_path: Path
) -> None:
    store.add("115", "fresh")
    (file,) = files(tmp_path)
    fresh = file.read_bytes()
    store.add("115", "old")
    results: list[bool] = []
    writer = threading.Thread(target=lambda: results.append(store.mark_revoked("115", "old")))
    with (tmp_path / "credentials" / ".lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writer.start()
        # A writer that did not wait would be done by then.
        writer.join(0.2)
        file.write_bytes(fresh)
    writer.join(30)
    assert results == [False]
    assert store.get("115").refresh_token == "fresh"
