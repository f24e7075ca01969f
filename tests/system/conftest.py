"""What a system administrator does: installs it, boots it, puts a proxy before it.

These need more than a Python (systemd, nginx, debootstrap, root), so they are collected only where they are asked for:
`make test-system`. What is missing then fails, and is not skipped.

The booted machine is one for all of them, and goes from bare to bare: test_booted.py, then test_booted_console.py,
test_booted_hooks.py, test_booted_load.py, test_booted_programs.py, test_booted_push.py, test_booted_removal.py, which
is the order of their names.
"""

from __future__ import annotations

import faulthandler
import json
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import ROOT
from tests.system.machine import SETTINGS, Machine
from tests.system.programs import PYTHON, need, run
from tests.system.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
TRANSCRIPT = Transcript(ROOT / "dist" / "test-system.txt")

# The work of pings that are not of the timeline: "fail" is an item that cannot be worked, "slow..." takes its time.
HANDLER = """import json, time
from pathlib import Path
from glassq import Bury

PLACE = Path("/var/lib/glassq")

def note(file, item):
    with (PLACE / file).open("a") as lines:
        lines.write(item + "\\n")

def handle(delivery):
    item = json.loads(delivery.body)["itemId"]
    if item == "fail":
        raise Bury("as it was asked")
    note("begun", item)
    time.sleep(3.0 if item.startswith("slow") else 0.02)
    note("worked", item)
"""
# Sends pings to the address given, and prints the status of each.
PING = """import json, sys, urllib.error, urllib.request
address, items = sys.argv[1], sys.argv[2:]
token = open("/etc/glassq/secrets/mirror-verify-tokens").read().split()[0]
for item in items:
    ping = {"collection": "locations", "itemId": item, "operation": "UPDATE", "userToken": "u", "verifyToken": token}
    request = urllib.request.Request(address + "/hooks/mirror", json.dumps(ping).encode(),
                                     {"Content-Type": "application/json"})
    try:
        print(urllib.request.urlopen(request, timeout=60).status, flush=True)
    except urllib.error.HTTPError as error:
        print(error.code, flush=True)
"""
ADD = """from glassq import taskqueue
taskqueue.add(url="/task", payload=b"x", name="only-once")
try:
    taskqueue.add(url="/task", payload=b"x", name="only-once")
except taskqueue.TaskAlreadyExistsError:
    print("taken")
"""
MORE = """
[[routes]]
source = "mirror"
handler = "glassq.glass.photos:store"
collection = "timeline"
[[routes]]
source = "mirror"
handler = "handlers:handle"
[push]
names = "sqlite:////var/lib/glassq-tasks/task-names.db"
[push.targets]
default = "http://127.0.0.1:9"
"""
# Where control groups are of the old kind, systemd 252 waits so long after a kill -9 before it starts a unit again.
SHORT = "[Service]\nTimeoutStopSec=3\n"


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    asked = [Path(config.invocation_params.dir, argument.split("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(HERE) for path in asked) else True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TRANSCRIPT.told:
        terminalreporter.section(f"what was done and seen, also in {TRANSCRIPT.path.relative_to(ROOT)}")
        terminalreporter.write(TRANSCRIPT.path.read_text())


@pytest.fixture(autouse=True)
def transcript(request: pytest.FixtureRequest) -> Transcript:
    """With the test's name for a heading, should the test say something."""
    name, _, case = request.node.name.removeprefix("test_").partition("[")
    TRANSCRIPT.begin(name.replace("_", " ") + (case and f": {case[:-1]}"))
    return TRANSCRIPT


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this tree."""
    need("dpkg-deb", "dpkg")
    directory = tmp_path_factory.mktemp("package")
    _take_time()
    # what dpkg-deb takes by itself costs minutes
    quick = {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
    run(ROOT / "tools" / "deb", DIST=directory, PYTHON=PYTHON, **quick)
    return next(directory.glob("glassq_*.deb"))


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine of this one's distribution, without glassq."""
    if os.geteuid() != 0:
        pytest.fail("only root can boot a container")
    need("systemd-nspawn", "systemd-container")
    root = tmp_path_factory.mktemp("machine") / "root"
    include = "systemd,systemd-sysv,dbus,beanstalkd,python3,nodejs,php-cli,curl,openssh-server"
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    _take_time()
    run(need("debootstrap", "debootstrap"), "--variant=minbase", f"--include={include}", suite, root)
    machine = Machine(root, TRANSCRIPT)
    try:
        machine.wait_booted()
        yield machine
    finally:
        machine.off()
        # its size is that of a distribution
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def files_before(bare: Machine) -> set[str]:
    """What is on the machine's disk before glassq is."""
    bare.write("usr/local/share/ping.py", PING)
    bare.write("usr/local/share/add.py", ADD)
    for unit in ("glassq-web", "glassq-worker", "glassq-beanstalkd", "glassq-syncer"):
        bare.write(f"etc/systemd/system/{unit}.service.d/short.conf", SHORT)
    # its own unit, without a binlog, has the port that a later test needs
    bare.run("useradd app; systemctl disable --now beanstalkd")
    return bare.files()


@pytest.fixture(scope="session")
def machine(bare: Machine, package: Path, files_before: set[str]) -> Machine:
    """The same, with the package installed and not configured."""
    shutil.copy(package, bare.root / "root/glassq.deb")
    TRANSCRIPT.begin("installed on a bare machine")
    TRANSCRIPT.say(
        f"{bare.run('. /etc/os-release; echo $PRETTY_NAME')}, {bare.run('systemctl --version').splitlines()[0]}, "
        "booted in a container; no network"
    )
    bare.shows("dpkg -i /root/glassq.deb | grep -v '^(Reading'")
    return bare


class Glass:
    """The simulated Glass in the machine's network; `files` is where the files that are shared lie."""

    def __init__(self, machine: Machine, files: Path) -> None:
        self.files = files
        self._process = machine.beside("tests.system.simulated", str(files))
        self.says = self._answer()

    def ask(self, *words: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def glass(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glass]:
    simulated = Glass(machine, tmp_path_factory.mktemp("shared"))
    yield simulated
    simulated.end()


@pytest.fixture(scope="session")
def glassq(machine: Machine, glass: Glass) -> Machine:
    """The machine, configured and started in the documented way: photos of the timeline, a handler for the rest."""
    machine.write("etc/glassq/handlers.py", HANDLER)
    for before, after in (
        ('"https://www.googleapis.com/mirror/v1/"', f'"{glass.says["api_url"]}"'),
        ('"https://oauth2.googleapis.com/token"', f'"{glass.says["token_url"]}"'),
        ('client_id = ""', f'client_id = "{glass.says["client_id"]}"'),
        # so that nobody need wait for long
        ('\nbackoff = "30s"', '\nbackoff = "1s"'),
    ):
        machine.edit(SETTINGS, before, after)
    machine.write(SETTINGS, (machine.root / SETTINGS).read_text() + MORE)
    machine.write("root/client-secret.txt", glass.says["client_secret"] + "\n")
    machine.run("install -g glassq -m 640 /root/client-secret.txt /etc/glassq/secrets/client-secret")
    machine.run("glassq config check")
    machine.run("systemctl enable --now glassq.target")
    machine.wait_active("glassq-web", "glassq-worker")
    return machine


def _take_time() -> None:
    """The distribution and Python's packages are fetched: that may take longer than a test may hang."""
    faulthandler.cancel_dump_traceback_later()
