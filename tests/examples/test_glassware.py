"""The Glassware of examples/glassware against real servers, seen as its users and its operator see it."""

from __future__ import annotations

import http.client
import io
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from app import create_app, tasks_listener
from demo import show
from rich.console import Console
from servers import running

from glassq import settings as settings_of
from glassq import taskqueue
from glassq.dev.stack import write_settings
from glassq.errors import SettingsError
from glassq.glass.credentials import new_key
from glassq.push import queue_yaml
from tests.conftest import ROOT, Process, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Example

    from glassq.dev.simulator.glass import TimelineItem
    from glassq.settings import Settings

GLASSWARE = ROOT / "examples" / "glassware"
DEADLINE = 60.0
FROM_POOL = {"X-AppEngine-QueueName": "default", "X-AppEngine-TaskName": "by-hand"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Example, str, int]]:
    """All of it runs: ada's pings go to /glassCallback, hedy's to glassq's own intake.

    `make example` has shared its photos there: what it said, and how many photos lay there then.
    """
    directory = tmp_path_factory.mktemp("example")
    with running(directory) as up:
        out = Console(file=io.StringIO(), width=200)
        fine = show(up, directory, out)
        said = out.file.getvalue()  # type: ignore[attr-defined]
        assert fine, said
        yield up, said, len(list((directory / "photos").iterdir()))


@pytest.fixture
def example(shown: tuple[Example, str, int]) -> Example:
    return shown[0]


def stored(example: Example, item: TimelineItem) -> bool:
    return all(path.exists() for path, _ in example.files(item))


def assert_as_shared(example: Example, item: TimelineItem) -> None:
    for path, attachment in example.files(item):
        assert path.read_bytes() == attachment.data


def all_worked(example: Example) -> bool:
    return not any(each.ready + each.reserved + each.delayed for each in example.counts())


def answered(example: Example, status: int) -> int:
    return sum(each == status for each, _ in example.answers())


def ask(address: str, path: str, body: bytes = b"{}", headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=DEADLINE)
    try:
        connection.request("POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def as_json(ping: dict[str, object]) -> bytes:
    return json.dumps(ping).encode()


def test_make_example_shows_the_photos_and_loses_nothing(shown: tuple[Example, str, int]) -> None:
    _, said, stored = shown
    rows = {words[0]: words[1] for line in said.splitlines() if len(words := line.split()) > 1}
    assert rows["lost"] == "0"
    assert rows["299"] == "1"
    photos = [line for line in said.splitlines() if "as shared" in line]
    assert len(photos) == stored
    assert int(rows["retried"]) >= 3


@pytest.mark.parametrize("user", ["ada", "hedy"])
def test_what_a_user_shares_is_stored_byte_for_byte(example: Example, user: str) -> None:
    item = example.glass.share(user, ["jpeg", "mp4", "stream"])
    assert example.glass.ping(user, item).statuses == (200,)
    wait_for(lambda: stored(example, item), "the photo and the film to be stored", DEADLINE)
    assert_as_shared(example, item)
    names = [path.name for path, _ in example.files(item)]
    assert names[0] == f"ugi-{user}-{item.id}.jpg"
    assert len(names) == 2


def test_a_spoofed_ping_is_dropped_with_299_and_stores_nothing(example: Example) -> None:
    before = answered(example, 299)
    spoofed = example.glass.share("ada")
    assert example.glass.ping("ada", spoofed, verifyToken="somebody-else").acknowledged
    wait_for(lambda: answered(example, 299) == before + 1, "the task to be dropped", DEADLINE)
    assert not stored(example, spoofed)
    assert not any(each.delayed or each.buried for each in example.counts())


def test_a_photo_that_is_still_processed_is_stored_when_it_is_ready(example: Example) -> None:
    item = example.glass.share("ada", processing_for=1.0)
    assert example.glass.ping("ada", item).acknowledged
    wait_for(lambda: stored(example, item), "the photo to be stored", DEADLINE)
    assert_as_shared(example, item)


def test_a_ping_that_comes_twice_stores_one_photo(example: Example) -> None:
    item = example.glass.share("ada")
    assert example.glass.ping("ada", item).acknowledged
    assert example.glass.ping("ada", item).acknowledged
    wait_for(lambda: all_worked(example), "both tasks to be worked", DEADLINE)
    assert_as_shared(example, item)
    photos = example.files(item)[0][0].parent
    assert len(list(photos.glob(f"*{item.id}*"))) == 1


def test_nobody_but_the_pool_reaches_the_task_handler(example: Example) -> None:
    assert ask(example.public, "/taskHandler", headers=FROM_POOL)[0] == 404
    assert ask(example.tasks, "/taskHandler")[0] == 404
    assert ask(example.tasks, "/taskHandler", headers=FROM_POOL)[0] == 299


def test_a_host_header_makes_no_listener_of_another(example: Example) -> None:
    forged = {**FROM_POOL, "Host": example.tasks, "X-Forwarded-Host": example.tasks, "X-Forwarded-Port": "1"}
    assert ask(example.public, "/taskHandler", headers=forged)[0] == 404


def test_what_cannot_be_done_says_why_to_the_operator(example: Example) -> None:
    item = example.glass.share("ada")
    ping = example.glass.notification("ada", item, userToken="nobody-we-know")
    body = as_json(ping)
    status, words = ask(example.tasks, "/taskHandler", body, FROM_POOL)
    assert status == 422
    assert "nobody-we-know" in words
    assert ping["verifyToken"] not in words


def test_a_ping_about_nothing_shared_is_done_without_asking_glass(example: Example) -> None:
    item = example.glass.share("ada")
    asked = len(example.glass.requests)
    body = as_json(example.glass.notification("ada", item, action="PIN"))
    status, words = ask(example.tasks, "/taskHandler", body, FROM_POOL)
    assert (status, "nothing was shared" in words) == (200, True)
    assert len(example.glass.requests) == asked


# -- without a pool ---------------------------------------------------------------------------------------------


def settings_with(directory: Path, target: str) -> Settings:
    """Settings whose queue nobody serves."""
    (directory / "credentials-key").write_text(new_key())
    (directory / "client-secret").write_text("secret\n")
    sections: dict[str, dict[str, object]] = {
        "queue": {"url": f"beanstalk://127.0.0.1:{free_port()}"},
        "glass": {
            "client_id": "me",
            "client_secret_file": directory / "client-secret",
            "credentials": directory / "credentials",
            "credentials_key_file": directory / "credentials-key",
        },
        "push": {"names": f"sqlite:///{directory}/names.db"},
        "push.targets": {"default": target},
    }
    write_settings(directory, sections, f"{target}/taskHandler")
    return settings_of.load(str(directory / "glassq.toml"), {})


def test_a_ping_that_cannot_be_kept_is_answered_503_so_that_glass_sends_it_again(tmp_path: Path) -> None:
    app = create_app(settings_with(tmp_path, "http://127.0.0.1:8082"))
    try:
        answer = app.test_client().post("/glassCallback", data=b"{}")
    finally:
        taskqueue.configure(None)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize("target", ["http://192.0.2.1:8082", "http://glassware.example", "http://127.0.0.1"])
def test_it_does_not_start_where_strangers_could_reach_the_task_handler(tmp_path: Path, target: str) -> None:
    with pytest.raises(SettingsError, match=r"\[push.targets\] default = .*expected http://127.0.0.1:PORT"):
        tasks_listener(settings_with(tmp_path, target))


def test_its_settings_and_queues_are_such_as_glassq_takes() -> None:
    settings = settings_of.load(str(GLASSWARE / "glassq.toml"), {})
    assert settings.push is not None
    assert tasks_listener(settings) == ("127.0.0.1", "8082")
    default = queue_yaml.load(str(GLASSWARE / "queue.yaml"), settings.push.targets)["default"]
    assert default.retry.task_age_limit == 86_400


# -- the whole program ------------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_example_and_leaves_no_process_behind(tmp_path: Path) -> None:
    home = tmp_path / "example"
    demo = Process([sys.executable, str(GLASSWARE / "demo.py"), "--dir", str(home)], tmp_path / "demo.log")
    try:
        wait_for(lambda: " shares " in demo.output() or not demo.running(), "the first photo", DEADLINE)
        assert processes_of(home)
    finally:
        code = demo.end(signal.SIGINT, DEADLINE)
    assert code == 1, demo.output()
    assert "Aborted" in demo.output()
    assert not processes_of(home)


def processes_of(home: Path) -> list[str]:
    """Those that were told of this directory, on their command line or in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(str(home).encode() in (process / name).read_bytes() for name in ("cmdline", "environ")):
                found.append(process.name)
    return found


def test_an_example_that_finds_somebody_elses_files_leaves_them(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    command = [sys.executable, str(GLASSWARE / "demo.py"), "--dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert (tmp_path / "mine").read_text() == "precious"
