"""Documents are fetched aside, from a real server over TLS; whatever that does, pings are told at once."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from glassq import https_get
from glassq.errors import SourceUnready
from glassq.sources import fetched_keys
from glassq.sources.fetched_keys import MAX_DOCUMENT, MAX_KEPT, MAX_WANTED, FetchedKeys
from glassq.sources.key_directory import MAX_FILES, KeyDirectory
from tests.conftest import PATIENCE
from tests.push.targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.sources.certificates import Authority


@pytest.fixture
def fetching(authority: Authority, tmp_path: Path) -> Iterator[Callable[..., FetchedKeys]]:
    """Makes the documents of one process after another, with one directory for all."""
    made: list[FetchedKeys] = []

    def make(directory: Path | None = tmp_path / "keys", pace: float = 0.0) -> FetchedKeys:
        made.append(FetchedKeys(KeyDirectory(directory) if directory else None, authority.client(), pace))
        return made[-1]

    yield make
    for keys in made:
        keys.close()


@pytest.fixture
def keys(fetching: Callable[..., FetchedKeys]) -> FetchedKeys:
    return fetching()


def text(body: bytes) -> str:
    """A document of these tests: text that begins with "key"."""
    if not body.startswith(b"key"):
        raise ValueError("answered no key")
    return body.decode()


def once_there(keys: FetchedKeys, url: str, suits: Callable[[str], bool] = lambda _: True) -> str:
    """The document, once it is there. What asks meanwhile is told so at once."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return keys.get(url, text, suits)
        except SourceUnready:
            assert time.monotonic() < deadline, "the document never came"
            keys.settle(1.0)
            time.sleep(0.01)


def unready(keys: FetchedKeys, url: str) -> str:
    with pytest.raises(SourceUnready) as caught:
        keys.get(url, text)
    return str(caught.value)


def test_what_is_not_here_yet_comes_for_the_next_ping(keys: FetchedKeys, https_server: Target) -> None:
    url = f"{https_server.url}/a?body=key1"
    assert "127.0.0.1 is not here yet" in unready(keys, url)
    assert once_there(keys, url) == "key1"
    assert keys.get(url, text) == "key1"
    assert [(asked.method, asked.url) for asked in https_server.asked] == [("GET", "/a?body=key1")]
    assert "cookie" not in https_server.asked[0].headers


def test_what_was_fetched_is_here_after_a_restart_and_for_other_workers(
    keys: FetchedKeys, https_server: Target, fetching: Callable[..., FetchedKeys]
) -> None:
    url = f"{https_server.url}/a?body=key1"
    once_there(keys, url)
    again = fetching()
    assert again.get(url, text) == "key1"
    assert len(https_server.asked) == 1


def test_what_another_worker_has_fetched_is_here_at_once_for_one_that_could_not_fetch_it(
    keys: FetchedKeys, https_server: Target, tmp_path: Path
) -> None:
    url = f"{https_server.url}/a?body=key1"
    # it does not know the server's authority, so its next try is seconds away
    other = FetchedKeys(KeyDirectory(tmp_path / "keys"))
    try:
        unready(other, url)
        other.settle(PATIENCE)
        once_there(keys, url)
        assert other.get(url, text) == "key1"
    finally:
        other.close()


@pytest.mark.parametrize("spoil", ["others", "changed", "unreadable", "old"])
def test_a_file_that_is_not_to_be_believed_is_fetched_again(
    keys: FetchedKeys, https_server: Target, fetching: Callable[..., FetchedKeys], tmp_path: Path, spoil: str
) -> None:
    url = f"{https_server.url}/a?body=key1"
    once_there(keys, url)
    (file,) = (tmp_path / "keys").iterdir()
    if spoil == "others":
        (tmp_path / "keys").chmod(0o770)
    elif spoil == "changed":
        file.write_bytes(b"https://other.example/\nkey2")
    elif spoil == "unreadable":
        file.write_bytes(url.encode() + b"\nnot one")
    else:
        os.utime(file, (time.time() - fetched_keys.USABLE - 60,) * 2)
    again = fetching()
    unready(again, url)
    assert once_there(again, url) == "key1"
    assert len(https_server.asked) == 2


def test_a_directory_that_cannot_be_written_costs_only_the_restart(
    https_server: Target, fetching: Callable[..., FetchedKeys], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "keys").write_text("a file")
    keys = fetching()
    assert once_there(keys, f"{https_server.url}/a?body=key1") == "key1"
    assert "kept in memory only" in caplog.text


BAD = {
    "status=404&body=key1": "answered 404",
    "status=302&header=Location:%20/b&body=key1": "answered 302",
    f"size={MAX_DOCUMENT + 1}": f"answered more than {MAX_DOCUMENT} bytes",
    "body=nothing": "answered no key",
    "body=key1&short=5": "cannot be talked to",
    "raw=SSH-2.0": "cannot be talked to",
    "instead=hangup": "cannot be talked to",
}


@pytest.mark.parametrize(("query", "why"), BAD.items())
def test_a_bad_answer_is_no_key(
    keys: FetchedKeys, https_server: Target, caplog: pytest.LogCaptureFixture, query: str, why: str
) -> None:
    url = f"{https_server.url}/a?{query}"
    unready(keys, url)
    keys.settle(PATIENCE)
    assert "is not here yet" in unready(keys, url)
    assert why in caplog.text
    assert [asked.url for asked in https_server.asked] == [f"/a?{query}"], "a redirect is not followed"


@pytest.mark.parametrize("query", ["instead=hang", "drip=0.05", "drip=0.05&header=Content-Length:%20100000"])
def test_a_slow_server_is_left_in_time(https_server: Target, authority: Authority, query: str) -> None:
    with pytest.raises(OSError, match="did not answer in time"):
        https_get.get(f"{https_server.url}/a?{query}", seconds=0.3, limit=1 << 20, tls=authority.client())


@pytest.mark.parametrize(("name", "days", "why"), [("127.0.0.1", -0.5, "expired"), ("192.0.2.1", 10, "not valid for")])
def test_a_server_with_a_wrong_certificate_is_not_asked(
    authority: Authority, tmp_path: Path, name: str, days: float, why: str
) -> None:
    with Target(authority.server(tmp_path, name, days=days)) as server:
        with pytest.raises(OSError, match=f"certificate that is not trusted: .*{why}"):
            https_get.get(f"{server.url}/a", seconds=PATIENCE, limit=100, tls=authority.client())
        assert not server.asked


def test_a_server_of_an_unknown_authority_is_not_asked(https_server: Target) -> None:
    with pytest.raises(OSError, match="certificate that is not trusted"):
        https_get.get(f"{https_server.url}/a", seconds=PATIENCE, limit=100)
    with pytest.raises(OSError, match="is no https URL"):
        https_get.get(https_server.url.replace("https", "http"), seconds=PATIENCE, limit=100)
    with pytest.raises(OSError, match="cannot be talked to: Connection refused"):
        https_get.get("https://127.0.0.1:1/", seconds=PATIENCE, limit=100)
    assert not https_server.asked


def test_a_failed_fetch_is_repeated_with_backoff(keys: FetchedKeys, https_server: Target) -> None:
    url = f"{https_server.url}/a?status=503"
    unready(keys, url)
    keys.settle(PATIENCE)
    for _ in range(100):
        unready(keys, url)
    keys.settle(PATIENCE)
    assert len(https_server.asked) == 1, "asking again does not shorten the wait"


def test_a_key_that_could_not_be_fetched_comes_by_itself(
    https_server: Target, fetching: Callable[..., FetchedKeys], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched_keys, "BACKOFF", 0.05)
    keys, tries = fetching(None), []

    def read(body: bytes) -> str:
        tries.append(body)
        return text(body if len(tries) > 1 else b"not yet")

    with pytest.raises(SourceUnready):
        keys.get(f"{https_server.url}/a?body=key1", read)
    deadline = time.monotonic() + PATIENCE
    while len(tries) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert once_there(keys, f"{https_server.url}/a?body=key1") == "key1"


def test_a_bug_in_a_reader_neither_ends_the_fetching_nor_repeats_it_at_once(
    keys: FetchedKeys, https_server: Target, caplog: pytest.LogCaptureFixture
) -> None:
    def read(_body: bytes) -> str:
        raise KeyError("a bug")

    with pytest.raises(SourceUnready):
        keys.get(f"{https_server.url}/a?body=key1", read)
    keys.settle(PATIENCE)
    assert "bug in the fetching of keys" in caplog.text
    assert once_there(keys, f"{https_server.url}/b?body=key2") == "key2"
    assert [asked.url for asked in https_server.asked] == ["/a?body=key1", "/b?body=key2"]


def test_strangers_cannot_make_us_want_without_bound(
    https_server: Target, fetching: Callable[..., FetchedKeys]
) -> None:
    keys = fetching(None, 3600.0)
    for number in range(1000):
        unready(keys, f"{https_server.url}/{number}?status=404")
    keys.settle(0.0)
    assert len(keys._documents) <= MAX_WANTED + 1
    deadline = time.monotonic() + PATIENCE
    while not https_server.asked:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(https_server.asked) == 1, "the next fetch is an hour away"


def test_an_unknown_key_asks_for_its_set_only_when_that_is_not_fresh(
    keys: FetchedKeys, https_server: Target, tmp_path: Path, fetching: Callable[..., FetchedKeys]
) -> None:
    url = f"{https_server.url}/set?body=key1"
    once_there(keys, url)
    for _ in range(100):
        assert keys.get(url, text, lambda found: "key2" in found) == "key1", "it is fresh: the key does not exist"
    assert len(https_server.asked) == 1
    # the same a little later
    (file,) = (tmp_path / "keys").iterdir()
    os.utime(file, (time.time() - fetched_keys.RENEW - 60,) * 2)
    later = fetching()
    assert later.get(url, text, lambda found: "key1" in found) == "key1"
    with pytest.raises(SourceUnready, match="not among those"):
        later.get(url, text, lambda found: "key2" in found)
    assert once_there(later, url, lambda found: "key2" in found) == "key1"
    assert len(https_server.asked) == 2


def test_an_old_document_is_used_while_a_new_one_is_fetched(
    keys: FetchedKeys, https_server: Target, tmp_path: Path, fetching: Callable[..., FetchedKeys]
) -> None:
    url = f"{https_server.url}/a?body=key1"
    once_there(keys, url)
    (file,) = (tmp_path / "keys").iterdir()
    os.utime(file, (time.time() - fetched_keys.FRESH - 60,) * 2)
    later = fetching()
    assert later.get(url, text) == "key1"
    later.settle(PATIENCE)
    assert len(https_server.asked) == 2


def test_what_is_kept_is_bounded_in_memory_and_on_disk(tmp_path: Path, fetching: Callable[..., FetchedKeys]) -> None:
    directory = KeyDirectory(tmp_path / "keys")
    for number in range(MAX_FILES + 5):
        directory.store(f"https://a.example/{number}", b"key")
    assert len(list((tmp_path / "keys").iterdir())) == MAX_FILES
    keys = fetching()
    for number in range(5, MAX_FILES + 5):
        assert keys.get(f"https://a.example/{number}", text) == "key"
    with pytest.raises(SourceUnready):
        keys.get("https://a.example/0", text)
    assert len(keys._documents) <= MAX_KEPT + 1


def test_a_process_that_is_forked_has_a_thread_of_its_own(keys: FetchedKeys, https_server: Target) -> None:
    once_there(keys, f"{https_server.url}/a?body=key1")
    child = os.fork()
    if not child:
        try:
            os._exit(0 if once_there(keys, f"{https_server.url}/b?body=key2") == "key2" else 1)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
