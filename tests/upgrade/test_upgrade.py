"""An installation of the last release upgrades and loses nothing: settings, queue, spool, ledger, names, users.

Its spool is today's intake journal.
"""

from __future__ import annotations

import hmac
import json
import os
import sqlite3
import subprocess
import tarfile
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glassq import taskqueue
from glassq.push.client import Client
from glassq.settings import load
from tests import forked
from tests.conftest import Process, free_port, wait_for
from tests.push.targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

# Made by make_fixture.py, named after the commit of the release.
RELEASES = sorted(Path(__file__).parent.glob("*.tar.xz"))


class Installation:
    """An unpacked installation, run by the programs of this tree."""

    def __init__(self, directory: Path, release: Path, target: str) -> None:
        self.dir = directory / "installation"
        with tarfile.open(release) as archive:
            # an argument of Python 3.11.4 and newer
            archive.extractall(self.dir, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        self.port, self.web = free_port(), free_port()
        self.config = self.dir / "glassq.toml"
        text = self.config.read_text()
        for place, value in {
            "@DIR@": str(self.dir),
            "@QUEUE@": f"127.0.0.1:{self.port}",
            "@BIND@": f"127.0.0.1:{self.web}",
            "@INTAKE-METRICS@": f"127.0.0.1:{free_port()}",
            "@POOL-METRICS@": f"127.0.0.1:{free_port()}",
            "http://@TARGET@": target,
        }.items():
            text = text.replace(place, value)
        self.config.write_text(text)
        self.expected: dict[str, Any] = json.loads((self.dir / "expected.json").read_text())
        self.jobs: dict[str, dict[str, str]] = self.expected["jobs"]
        self._running: list[Process] = []

    def start(self, *command: str, forks: str = "") -> None:
        self._running.append(Process(list(command), self.dir / f"{len(self._running)}.log", forks=forks))

    def start_queue(self) -> None:
        binlog = ["-b", f"{self.dir}/binlog", "-f0", "-s", "65536", "-z", "131072"]
        self.start("beanstalkd", "-l", "127.0.0.1", "-p", str(self.port), *binlog)
        wait_for(lambda: self.glassq("status").returncode == 0, "the queue to answer")

    def start_ours(self, name: str) -> None:
        self.start("--config", str(self.config), forks=name)

    def stop(self) -> None:
        for process in reversed(self._running):
            process.end()

    def logs(self) -> str:
        return "\n".join(process.output() for process in self._running)

    def glassq(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["--config", str(self.config), *words]
        return subprocess.CompletedProcess(command, *forked.run(command))

    def said(self, *words: str) -> Any:
        done = self.glassq(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def answers(self, path: str, body: bytes | None = None, **headers: str) -> int:
        """The status that the intake answers; 0 while it does not listen."""
        named = {"Content-Type": "application/json", **headers}
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{self.web}{path}", body, named)
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def mend(self) -> None:
        """From now on the handlers work whatever comes."""
        (self.dir / "mended").touch()

    def worked(self) -> list[str]:
        """Ids of the deliveries that the handler has worked since."""
        file = self.dir / "worked"
        return file.read_text().split() if file.exists() else []

    def ids(self, *items: str) -> set[str]:
        return {self.jobs[item]["id"] for item in items}

    def buried(self) -> set[str]:
        return {job["delivery"] for job in self.said("buried")["jobs"] if job["delivery"]}


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture(params=RELEASES, ids=lambda path: path.name.partition(".")[0])
def installed(request: pytest.FixtureRequest, tmp_path: Path, target: Target) -> Iterator[Installation]:
    installation = Installation(tmp_path, request.param, target.url)
    installation.start_queue()
    yield installation
    installation.stop()


def test_what_lay_in_the_queue_the_ledger_and_the_users_directory_is_there_still(installed: Installation) -> None:
    checked = installed.glassq("config", "check")
    assert checked.returncode == 0
    for old, new in {"spool": "journal", "spool_max": "journal_max", "spool_min_free": "journal_min_free"}.items():
        assert f"[intake] {old} is called {new} now" in checked.stderr
    assert "[intake] require_durable is not needed any more" in checked.stderr
    assert installed.said("journal")["count"] == installed.expected["spooled"]
    buried = {item for item, job in installed.jobs.items() if job["state"] == "buried"}
    assert installed.buried() == installed.ids(*buried)
    for item, job in installed.jobs.items():
        shown = installed.said("show", job["id"])
        assert (shown["delivery"]["id"], shown["job"]["state"]) == (job["id"], job["state"]), item
    story = installed.said("show", installed.jobs["fail-1"]["id"])["delivery"]["evidence"]
    assert ["ValueError" in each["traceback"] for each in story] == [True, True]
    for delivery, state in installed.expected["ended"].items():
        assert installed.said("show", delivery)["ledger"]["state"] == state
    assert [user["user"] for user in installed.said("users", "list")["users"]] == ["user_1"]


HOOKS = """
from pathlib import Path


class Seen:
    def __init__(self, settings):
        self.file = Path(settings.file).with_name("seen")

    def after(self, report):
        with self.file.open("a") as seen:
            seen.write(f"{report.delivery.id} {report.outcome} {len(report.delivery.evidence)}\\n")
"""


def test_all_that_waited_is_worked_and_what_was_buried_after_a_kick(installed: Installation, target: Target) -> None:
    installed.mend()
    # a hook of today sees deliveries of then
    (installed.dir / "watching.py").write_text(HOOKS)
    settings = installed.config.read_text()
    assert settings.count("[worker]") == 1
    installed.config.write_text(settings.replace("[worker]", '[worker]\nhooks = ["watching:Seen"]'))
    spooled = {path.stem for path in (installed.dir / "spool").glob("*.job")}
    assert len(spooled) == installed.expected["spooled"]
    waiting = installed.ids("ready-1", "ready-2", "hold-1", "bury-kicked")
    installed.start_ours("glassq-web")
    installed.start_ours("glassq-worker")
    wait_for(lambda: waiting | spooled <= set(installed.worked()), "what waited to be worked")
    # a job may be worked before its file is retired
    wait_for(lambda: not list((installed.dir / "spool").glob("*.job")), "the spool to be empty")
    wait_for(lambda: len(target.asked) == 2, "the tasks to reach their target")
    assert {request.body for request in target.asked} == {b"ready task", b"named task"}

    assert installed.glassq("kick", "--all", "--yes").returncode == 0
    buried = installed.ids("bury-1", "bury-2", "fail-1", "kill-1")
    wait_for(lambda: buried <= set(installed.worked()), "what was buried to be worked")

    archive = next((installed.dir / "archive").iterdir())
    assert installed.glassq("restore", str(archive), "--yes").returncode == 0
    archived = installed.expected["archived"]
    assert installed.glassq("kick", archived).returncode == 0
    wait_for(lambda: archived in installed.worked(), "what was archived to be worked")

    worked = installed.worked()
    assert sorted(worked) == sorted(waiting | spooled | buried | {archived}), "each once, and nothing else"
    # the hook sees an attempt after its handler has worked
    seen = installed.dir / "seen"
    wait_for(seen.exists, "the hook to see one")
    wait_for(lambda: all(f"{each} done" in seen.read_text() for each in worked), "the hook to see all of them")
    assert f"{installed.jobs['fail-1']['id']} done 2" in seen.read_text()
    for item in ("later-1", "far-1", "far task"):
        assert installed.said("show", installed.jobs[item]["id"])["job"]["state"] == "delayed"
    # the bytes that are no delivery lie buried, as they are
    assert [job["delivery"] for job in installed.said("buried")["jobs"]] == [None]


def test_what_was_done_can_be_replayed(installed: Installation) -> None:
    installed.mend()
    done = [delivery for delivery, state in installed.expected["ended"].items() if state == "done"]
    assert installed.glassq("replay", *done, "--yes").returncode == 0
    installed.start_ours("glassq-worker")
    # and those that waited, but for the two in the spool
    wait_for(lambda: len(installed.worked()) == len(done) + 4, "the replayed ones to be worked")


def test_a_name_that_was_taken_stays_taken(installed: Installation) -> None:
    # names are kept for days: the release took this one just now
    with closing(sqlite3.connect(installed.dir / "task-names.db")) as names, names:
        assert (
            names.execute("UPDATE task_names SET free = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+9 days')").rowcount == 1
        )
    client = Client(load(str(installed.config), os.environ))
    try:
        with pytest.raises(taskqueue.TaskAlreadyExistsError):
            taskqueue.Queue(client=client).add(taskqueue.Task(url="/work", name="named-task"))
    finally:
        client.close()


GITHUB = """
[[routes]]
source = "github"
match = {{ event = "push" }}
handler = "handlers:handle"
[sources.github]
secrets_file = "{directory}/github"
[bodies]
url = "file://{directory}/bodies"
"""


def test_settings_of_the_release_take_pings_as_before_and_a_new_source_beside(installed: Installation) -> None:
    installed.mend()
    (installed.dir / "github").write_text("s3cret\n")
    installed.config.write_text(installed.config.read_text() + GITHUB.format(directory=installed.dir))
    installed.start_ours("glassq-web")
    installed.start_ours("glassq-worker")
    wait_for(lambda: installed.answers("/readyz") == 200, "the intake to be ready")
    ping = {"collection": "timeline", "itemId": "new", "operation": "INSERT", "userToken": "u"}
    token = (installed.dir / "mirror-verify-tokens").read_text().strip()
    assert installed.answers("/hooks/mirror", json.dumps(ping | {"verifyToken": token}).encode()) == 200
    assert installed.answers("/hooks/mirror", json.dumps(ping | {"verifyToken": "another"}).encode()) == 403
    # beyond what a job holds
    push = json.dumps({"itemId": "push", "pad": "x" * (1 << 20)}).encode()
    signature = hmac.new(b"s3cret", push, "sha256").hexdigest()
    github = {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature}"}
    assert installed.answers("/hooks/github", push, **github) == 200
    # two new ones, beside those that waited: four in the queue, two in the spool
    wait_for(lambda: len(installed.worked()) == 8, "the new ones to be worked beside the old")
