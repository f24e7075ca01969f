"""Makes an installation of a release, as `test_upgrade.py` starts from it. Run it by the release's own interpreter:

    git worktree add /tmp/release COMMIT && cd /tmp/release && make setup
    .venv/bin/python .../tests/upgrade/make_fixture.py .../tests/upgrade/COMMIT.tar.xz

It uses only what stays the same from release to release: the programs in bin/, HTTP, beanstalkd's protocol, and the
form of a job that delivery.py describes. The archive holds the installation's directory, and expected.json:
what each delivery must still be after the upgrade.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import greenstalk

# Whoever unpacks the archive puts the paths and addresses in.
DIR, QUEUE, BIND, TARGET = "@DIR@", "beanstalk://@QUEUE@", "@BIND@", "http://@TARGET@"
METRICS = ("@INTAKE-METRICS@", "@POOL-METRICS@")
YEARS = 20 * 365 * 86_400
TOKEN = "upgrade-verify-token"
HANDLERS = '''
import json
import os
import signal
import time
from pathlib import Path

from glassq import Bury, Drop, Retry

HERE = Path(__file__).parent


def handle(delivery, context):
    """Does what the ping's itemId says, until the file `mended` is there; from then on all work."""
    item = json.loads(delivery.body)["itemId"]
    if (HERE / "mended").exists():
        with (HERE / "worked").open("a") as worked:
            worked.write(f"{delivery.id}\\n")
        return "worked after the upgrade"
    what = item.partition("-")[0]
    if what == "drop":
        raise Drop("nothing in it")
    if what == "later":
        raise Retry("not ready yet", delay=3600)
    if what == "bury":
        raise Bury(f"cannot be done: {item}", detail={"status": 404})
    if what == "fail":
        raise ValueError(f"broken: {item}")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hold":
        (HERE / "held").touch()
        time.sleep(600)
    return {"stored": item}
'''
ADD = """
from glassq import taskqueue
taskqueue.add(url="/work", payload=b"ready task")
taskqueue.add(url="/work", payload=b"named task", name="named-task")
taskqueue.add(url="/work", payload=b"far task", queue_name="photos", countdown=29 * 86400, headers={"X-Own": "1"})
"""
USER = {"type": "authorized_user", "client_id": "client", "client_secret": "secret", "refresh_token": "refresh"}
# Worked by the release: done, dropped, buried by a verdict and by a spent budget, retried; some are decided on later.
PINGS = ("done-1", "done-2", "drop-1", "bury-1", "bury-2", "bury-archived", "bury-kicked", "fail-1", "later-1")
# of nobody: made up for this fixture
SECRETS = {
    "mirror-verify-tokens": TOKEN,
    "client-secret": "secret",
    "credentials-key": "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=",
    "user.json": json.dumps(USER),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def settings(directory: str, queue: str, bind: str, target: str, metrics: tuple[str, str]) -> str:
    """The glassq.toml that the release ships, every key in it, with the values of this installation."""
    text = Path("conf/glassq.toml").read_text()
    for pattern, value in {
        r"^url = \"beanstalk:.*": f'url = "{queue}"',
        r"^bind = .*": f'bind = "{bind}"',
        r"^spool_min_free = .*": 'spool_min_free = "1MiB"',
        r"^max_attempts = .*": "max_attempts = 2",
        r"^processes = .*": "processes = 2",
        r"^backoff = .*": 'backoff = "1s"',
        r"^backoff_cap = .*": 'backoff_cap = "1s"',
        r"^handler = .*": 'handler = "handlers:handle"',
        r"^collection = .*": "",
        r"^# \[push\]": "[push]",
        r"^# queue_yaml = .*": f'queue_yaml = "{directory}/queue.yaml"',
        r"^# names = .*": f'names = "sqlite:///{directory}/task-names.db"',
        r"^# \[push.targets\]": "[push.targets]",
        r"^# default = .*": f'default = "{target}"',
        r"^retention = .*": 'retention = "36500d"',
        r"^client_id = .*": 'client_id = "client"',
        r"^intake = .*": f'intake = "{metrics[0]}"',
        r"^pool = .*": f'pool = "{metrics[1]}"',
    }.items():
        text, found = re.subn(pattern, value, text, count=1, flags=re.MULTILINE)
        assert found, pattern
    text = text.replace("/var/spool/glassq", f"{directory}/spool").replace("/var/lib/glassq", directory)
    return text.replace("/etc/glassq/secrets", directory)


class Release:
    """The programs of the release in the current directory, on an installation in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory
        self.port, self.web = free_port(), free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        target = f"http://127.0.0.1:{free_port()}"
        metrics = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
        (directory / "glassq.toml").write_text(
            settings(str(directory), f"beanstalk://127.0.0.1:{self.port}", f"127.0.0.1:{self.web}", target, metrics)
        )
        (directory / "queue.yaml").write_text("queue:\n- name: default\n  rate: 100/s\n- name: photos\n  rate: 5/s\n")
        (directory / "handlers.py").write_text(HANDLERS)
        for name, text in SECRETS.items():
            (directory / name).touch(0o600)
            (directory / name).write_text(f"{text}\n")
        for name in ("binlog", "spool", "archive"):
            (directory / name).mkdir()

    def start(self, name: str, *command: str) -> None:
        with (self.dir / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def start_queue(self) -> None:
        where = ["-l", "127.0.0.1", "-p", str(self.port)]
        self.start("queue", "beanstalkd", *where, "-b", f"{self.dir}/binlog", "-f0", "-s", "65536", "-z", "131072")
        wait(lambda: socket.create_connection(("127.0.0.1", self.port)).close() is None)

    def start_ours(self, name: str) -> None:
        self.start(name, sys.executable, f"bin/{name}", "--config", f"{self.dir}/glassq.toml")

    def kill(self, name: str) -> None:
        """The whole of it, as a power cut does."""
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def ping(self, item: str) -> None:
        body = {"collection": "timeline", "itemId": item, "operation": "INSERT", "verifyToken": TOKEN}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.web}/hooks/mirror",
            json.dumps({**body, "userToken": "user_1"}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def glassq(self, *words: str) -> str:
        command = [sys.executable, "bin/glassq", "--config", f"{self.dir}/glassq.toml", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def client(self, tube: str = "glassq") -> greenstalk.Client:
        return greenstalk.Client(("127.0.0.1", self.port), encoding=None, use=tube, watch=tube)

    def jobs(self) -> dict[str, dict[str, object]]:
        """All jobs in the queue by their item, or by the payload of a task."""
        found = {}
        with self.client() as client:
            for number in range(1, 500):
                with suppress(greenstalk.NotFoundError):
                    job = client.peek(number)
                    if not job.body.startswith(b"glassq/"):
                        continue
                    _, header, body = job.body.split(b"\n", 2)
                    name = json.loads(body)["itemId"] if body.startswith(b"{") else body.decode()
                    stats = client.stats_job(job)
                    found[name] = {
                        "id": json.loads(header)["id"],
                        "job": number,
                        "state": stats["state"],
                        "tube": stats["tube"],
                    }
        return found

    def put_off(self, name: str) -> None:
        """Has a delivery wait for years, so that it waits still whenever the test runs."""
        job = self.jobs()[name]
        with self.client(str(job["tube"])) as client:
            client.release(client.reserve_job(job["job"]), delay=YEARS)

    def ended(self) -> dict[str, str]:
        """What the ledger says of each delivery that had an attempt."""
        told = self.glassq("tail", "--once", "--lines", "100", "--json").splitlines()
        return {entry["delivery"]: entry["state"] for entry in map(json.loads, told)}

    def count(self, state: str) -> int:
        return sum(job["state"] == state for job in self.jobs().values())


def wait(condition) -> None:  # type: ignore[no-untyped-def]
    over = time.monotonic() + 60
    while True:
        with suppress(OSError):
            if condition():
                return
        assert time.monotonic() < over
        time.sleep(0.05)


def fill(release: Release) -> dict[str, object]:
    """Deliveries in every state; returns what is expected of them."""
    release.start_queue()
    release.start_ours("glassq-web")
    wait(lambda: urllib.request.urlopen(f"http://127.0.0.1:{release.web}/readyz").status == 200)
    release.glassq("users", "add", "user_1", "--from", f"{release.dir}/user.json")
    for item in PINGS:
        release.ping(item)
    release.start_ours("glassq-worker")
    wait(lambda: release.count("buried") == 5 and release.count("delayed") == 1)
    # the ledger is written a moment later than the queue; a child that is killed in between takes its entries along
    wait(lambda: len(release.ended()) == len(PINGS))
    release.ping("kill-1")
    wait(lambda: release.count("buried") == 6)
    archived = release.jobs()["bury-archived"]["id"]
    release.glassq("archive", str(archived), "--to", f"{release.dir}/archive", "--yes")
    wait(lambda: release.ended()[str(archived)] == "archived")
    ended = release.ended()
    # at work when everything is killed
    release.ping("hold-1")
    wait(lambda: (release.dir / "held").exists())
    release.kill("glassq-worker")
    release.glassq("kick", str(release.jobs()["bury-kicked"]["id"]))
    # nobody works: ready, delayed for years, tasks
    for item in ("ready-1", "ready-2", "far-1"):
        release.ping(item)
    environment = {**os.environ, "GLASSQ_CONFIG": f"{release.dir}/glassq.toml", "PYTHONPATH": "."}
    subprocess.run([sys.executable, "-c", ADD], check=True, env=environment)
    for name in ("later-1", "far-1", "far task"):
        release.put_off(name)
    # bytes that are no delivery
    with release.client() as client:
        client.put(b"no delivery of ours", ttr=120)
    jobs = release.jobs()
    # the queue is away: into the spool
    release.kill("queue")
    for item in ("spooled-1", "spooled-2"):
        release.ping(item)
    release.kill("glassq-web")
    return {"jobs": jobs, "archived": archived, "spooled": 2, "ended": ended}


def pack(directory: Path, expected: dict[str, object], target: Path) -> None:
    (directory / "glassq.toml").write_text(settings(DIR, QUEUE, BIND, TARGET, METRICS))
    (directory / "queue.yaml").chmod(0o644)
    (directory / "expected.json").write_text(json.dumps(expected, indent=1))
    for junk in [*directory.glob("*.log"), directory / "held", directory / "user.json"]:
        junk.unlink(missing_ok=True)
    shutil.rmtree(directory / "__pycache__", ignore_errors=True)

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    with tarfile.open(target, "w:xz") as archive:
        archive.add(directory, ".", filter=plain)


def main() -> None:
    target = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as place:
        release = Release(Path(place).resolve())
        try:
            expected = fill(release)
        except BaseException:
            for log in release.dir.glob("*.log"):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
            raise
        finally:
            for name in list(release.running):
                release.kill(name)
        pack(release.dir, expected, target)
    print(f"{target}: {target.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
