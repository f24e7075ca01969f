"""What every storage promises, held against a real directory and against a bucket over real HTTP."""

from __future__ import annotations

import errno
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq.errors import DeadlineExceeded, Retry
from glassq.glass.storage import MAX_NAME, open_storage
from glassq.values import StorageUrl
from tests.fakes.gcs import FakeGcs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from glassq.glass.storage import PhotoStorage, Stored

MIB = 1 << 20


@dataclass
class Place:
    """A storage, and a look past it at what is really there (unfinished files too)."""

    storage: PhotoStorage
    url: StorageUrl
    endpoint: str | None
    content: Callable[[], dict[str, bytes]]

    def write(self, name: str, chunks: Iterable[bytes]) -> Stored:
        return self.storage.write(name, chunks, content_type="image/jpeg", metadata={"item": "1"}, timeout=30)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Place]:
    photos = tmp_path / "photos"
    url = StorageUrl(f"file://{photos}")
    yield Place(open_storage(url), url, None, lambda: {path.name: path.read_bytes() for path in photos.iterdir()})


@pytest.fixture
def bucket() -> Iterator[Place]:
    with FakeGcs("photos", page=2) as gcs:
        url = StorageUrl("gs://photos")
        storage = open_storage(url, endpoint=gcs.url)
        yield Place(storage, url, gcs.url, lambda: {name: stored.data for (_, name), stored in gcs.objects.items()})
        storage.close()


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


def test_what_was_written_is_found_whole_under_its_url(place: Place) -> None:
    written = place.write("ugi-1-a.jpg", [b"photo", b"", b"graph"])
    assert (written.url, written.size, written.created) == (f"{place.url}/ugi-1-a.jpg", 10, True)
    found = place.storage.find("ugi-1-a.jpg")
    assert found is not None
    assert (found.url, found.size, found.created) == (written.url, 10, False)
    assert place.content() == {"ugi-1-a.jpg": b"photograph"}


def test_nothing_is_found_where_nothing_was_written(place: Place) -> None:
    assert place.storage.find("ugi-1-a.jpg") is None


def test_an_empty_object_is_an_object(place: Place) -> None:
    assert place.write("empty", []).created
    assert place.content() == {"empty": b""}


@pytest.mark.parametrize("size", [3, 9 * MIB])
def test_a_second_write_changes_nothing_and_says_what_was_there_before(place: Place, size: int) -> None:
    place.write("a", [b"the first"])
    again = place.write("a", [b"x" * size])
    assert (again.size, again.created) == (9, False)
    assert place.content() == {"a": b"the first"}


@pytest.mark.parametrize("first", [b"begun", b"x" * (9 * MIB)], ids=["small", "large"])
@pytest.mark.parametrize(
    "failure",
    [
        Retry("the download was truncated"),
        OSError(errno.ENOSPC, "not the storage's"),
        ConnectionResetError(),
        DeadlineExceeded(),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_a_source_that_fails_leaves_nothing_and_its_failure_comes_through(
    place: Place, failure: BaseException, first: bytes
) -> None:
    def chunks() -> Iterator[bytes]:
        yield first
        raise failure

    with pytest.raises(type(failure)) as caught:
        place.write("a", chunks())
    assert caught.value is failure
    assert place.content() == {}
    assert place.write("a", [b"better"]).created


def test_names_are_those_with_the_prefix_in_order(place: Place) -> None:
    for name in ["ugi-1-b.jpg", "ugi-2-a.jpg", "ugi-1-a.jpg", "ugi-1-a-%70s.jpg", "ugi-10-a.jpg"]:
        place.write(name, [b"x"])
    assert list(place.storage.names("ugi-1-")) == ["ugi-1-a-%70s.jpg", "ugi-1-a.jpg", "ugi-1-b.jpg"]
    assert len(list(place.storage.names(""))) == 5
    assert list(place.storage.names("ugi-3")) == []


def test_names_may_be_deleted_while_they_are_listed(place: Place) -> None:
    for number in range(5):
        place.write(f"a{number}", [b"x"])
    assert [place.storage.delete(name) for name in place.storage.names("a")] == [True] * 5
    assert place.content() == {}


def test_a_name_is_free_again_once_its_object_is_deleted(place: Place) -> None:
    place.write("a", [b"old"])
    assert place.storage.delete("a")
    assert not place.storage.delete("a")
    assert place.write("a", [b"new"]).created
    assert place.content() == {"a": b"new"}


@pytest.mark.parametrize("name", ["ugi-1%2E2-a-%70s%3A1.jpg", "with space", "Grüße", "?#&=+", "a" * MAX_NAME])
def test_awkward_names_are_kept_as_they_are(place: Place, name: str) -> None:
    assert place.write(name, [b"x"]).url == f"{place.url}/{name}"
    assert list(place.storage.names(name)) == [name]
    assert place.storage.find(name) is not None
    assert place.storage.delete(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "/a", "a\0b", "ü" * 128, "\udc80"])
def test_names_that_would_leave_the_storage_are_refused_before_anything_is_read(place: Place, name: str) -> None:
    def chunks() -> Iterator[bytes]:
        pytest.fail("was read")
        yield b""

    with pytest.raises(ValueError):
        place.write(name, chunks())
    with pytest.raises(ValueError):
        place.storage.find(name)
    with pytest.raises(ValueError):
        place.storage.delete(name)
    assert place.content() == {}


# Says when it is ready, waits to be let go, and writes; then says whether it created the object and the memory it
# grew by, in bytes, since its first write.
WRITER = """
import resource, sys
from glassq.glass.storage import open_storage
from glassq.values import StorageUrl
url, endpoint, name, letter, mib = sys.argv[1:]
storage = open_storage(StorageUrl(url), endpoint=endpoint or None)
def write(name, chunks):
    return storage.write(name, chunks, content_type="image/jpeg", metadata={}, timeout=60)
write("warm-" + letter, (bytes(1 << 20) for _ in range(9)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print("ready", flush=True)
sys.stdin.readline()
stored = write(name, (letter.encode() * (1 << 20) for _ in range(int(mib))))
print(stored.created, stored.size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10, flush=True)
"""


def start_writer(place: Place, name: str, letter: str, mib: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, place.url, place.endpoint or "", name, letter, str(mib)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_of_processes_that_race_for_a_name_exactly_one_wins_and_its_bytes_stay_whole(place: Place) -> None:
    with ExitStack() as stack:
        writers = {letter: stack.enter_context(start_writer(place, "wanted", letter, 9)) for letter in "abc"}
        for writer in writers.values():
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers.values():
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        answers = {letter: writer.communicate(timeout=60)[0].split() for letter, writer in writers.items()}
    winners = [letter for letter, (created, _, _) in answers.items() if created == "True"]
    assert len(winners) == 1
    assert {size for _, size, _ in answers.values()} == {str(9 * MIB)}
    assert place.content()["wanted"] == winners[0].encode() * (9 * MIB)
    assert set(place.content()) == {"wanted", "warm-a", "warm-b", "warm-c"}


def test_memory_does_not_grow_with_the_size(place: Place) -> None:
    with start_writer(place, "large", "a", 64) as writer:
        created, size, grown = writer.communicate("go\n", timeout=60)[0].split()[1:]
    assert (created, size) == ("True", str(64 * MIB))
    assert int(grown) < 16 * MIB
