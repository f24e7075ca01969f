"""The Debian package on a machine of its own, booted with systemd: installed, run, broken, mended, removed.

The machine is a container (systemd-nspawn) without a network. The tests bring it, one after the other, from bare to
bare.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_for
from tests.system.conftest import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator

# nspawn wants a /run that it may change; this one is the container's alone.
BOOT = """mount -t tmpfs tmpfs /run
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=$([ -e /sys/fs/cgroup/cgroup.controllers ] && echo 1 || echo 0)
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY
exec systemd-nspawn -q -D "$0" --boot --private-network --register=no --keep-unit -M glassq-test --console=pipe
"""
# Says what a handler sees; "fail" is an item that cannot be worked.
HANDLER = """import os
from glassq import Bury

def handle(delivery):
    if b'"fail"' in delivery.body:
        raise Bury("as it was asked")
    return "secrets: " + " ".join(sorted(os.listdir("/etc/glassq/secrets")))
"""
# Sends pings to the address given, and prints the status of each.
PING = """import json, sys, urllib.error, urllib.request
address, items = sys.argv[1], sys.argv[2:]
token = open("/etc/glassq/secrets/mirror-verify-tokens").read().strip()
for item in items:
    ping = {"collection": "timeline", "itemId": item, "operation": "INSERT", "userToken": "u", "verifyToken": token,
            "userActions": [{"type": "SHARE"}]}
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
PUSH = '\n[push]\nnames = "sqlite:////var/lib/glassq-tasks/task-names.db"\n[push.targets]\ndefault = "http://127.0.0.1:9"\n'
# Where control groups are of the old kind, systemd 252 waits so long after a kill -9 before it starts a unit again.
SHORT = "[Service]\nTimeoutStopSec=3\n"
WEB = "http://127.0.0.1:8080"
SETTINGS = "etc/glassq/glassq.toml"


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._console = (root.parent / "console.log").open("wb")
        self._nspawn = subprocess.Popen(
            [need("unshare", "util-linux"), "-m", "--propagation", "private", "sh", "-c", BOOT, str(root)],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=self._console,
        )

    def running(self) -> bool:
        return self._nspawn.poll() is None

    def console(self) -> str:
        return (self.root.parent / "console.log").read_text(errors="replace")

    def _init(self) -> str:
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        return (children.read_text().split() or ["0"])[0]

    def command(self, *command: str) -> list[str]:
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return ["nsenter", "-t", self._init(), "-m", "-u", "-i", "-n", "-p", "env", "-i", path, *command]

    def run(self, command: str) -> str:
        """What a shell's command prints in there; fails the test where it fails."""
        return run(*self.command("sh", "-c", command)).strip()

    def tells(self, command: str) -> str:
        """The same of one that may fail."""
        done = subprocess.run(self.command("sh", "-c", command), capture_output=True, text=True)
        return (done.stdout + done.stderr).strip()

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def edit(self, path: str, before: str, after: str) -> None:
        file = self.root / path
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after, 1))

    def ping(self, *items: str, to: str = WEB) -> list[str]:
        return self.run(f"python3 /usr/local/share/ping.py {to} {' '.join(items)}").split()

    def active(self, unit: str) -> bool:
        return self.tells(f"systemctl is-active {unit}") == "active"

    def pid(self, unit: str) -> str:
        return self.run(f"systemctl show -P MainPID {unit}")

    def log(self, unit: str) -> str:
        return self.run(f"journalctl --no-pager -o cat -u {unit}")

    def off(self) -> None:
        if self.running():
            # nspawn passes it on as an orderly shutdown
            self._nspawn.send_signal(signal.SIGTERM)
        try:
            self._nspawn.wait(60)
        except subprocess.TimeoutExpired:
            os.kill(int(self._init()), signal.SIGKILL)
            self._nspawn.wait(60)
        self._console.close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Iterator[Machine]:
    """A bare machine of this one's distribution, on which the package is installed and not configured."""
    if os.geteuid() != 0:
        pytest.fail("only root can boot a container")
    need("systemd-nspawn", "systemd-container")
    root = tmp_path_factory.mktemp("machine") / "root"
    include = "systemd,systemd-sysv,dbus,beanstalkd,python3"
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    run(need("debootstrap", "debootstrap"), "--variant=minbase", f"--include={include}", suite, root)
    shutil.copy(package, root / "root/glassq.deb")
    booted = Machine(root)
    booted.write("usr/local/share/ping.py", PING)
    booted.write("usr/local/share/add.py", ADD)
    for unit in ("glassq-web", "glassq-worker", "glassq-beanstalkd"):
        booted.write(f"etc/systemd/system/{unit}.service.d/test.conf", SHORT)
    try:
        wait_for(
            lambda: not booted.running() or booted.tells("systemctl is-system-running") in ("running", "degraded"),
            "the machine to boot",
            120,
        )
        assert booted.running(), booted.console()
        # its own unit, without a binlog, has the port that a later test needs
        booted.run("systemctl disable --now beanstalkd; dpkg -i /root/glassq.deb")
        yield booted
    finally:
        booted.off()
        # its size is that of a distribution
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def glassq(machine: Machine) -> Machine:
    """The machine, with a handler, and everything started in the documented way."""
    machine.write("etc/glassq/handlers.py", HANDLER)
    machine.edit(SETTINGS, '"glassq.glass.photos:store"', '"handlers:handle"')
    machine.write(SETTINGS, (machine.root / SETTINGS).read_text() + PUSH)
    machine.run("systemctl enable --now glassq.target")
    return machine


def test_an_installation_starts_nothing_and_makes_secrets_that_others_cannot_read(machine: Machine) -> None:
    assert machine.run("systemctl list-units --no-legend --state=active 'glassq*'") == ""
    modes = machine.run("stat -c '%A %U %G %n' /etc/glassq/secrets /etc/glassq/secrets/*").splitlines()
    assert modes == [
        "drwxr-x--- root glassq /etc/glassq/secrets",
        "-rw-r----- root glassq /etc/glassq/secrets/credentials-key",
        "-rw-r----- root glassq /etc/glassq/secrets/mirror-verify-tokens",
    ]
    # which root may ask, and the services' user
    assert 'url = "beanstalk:///run/glassq/beanstalkd.sock"' in machine.tells("glassq config check")
    assert 'url = "beanstalk:///run/glassq/beanstalkd.sock"' in machine.tells("runuser -u glassq glassq config check")


def test_a_ping_is_taken_kept_on_disk_and_worked(glassq: Machine) -> None:
    for unit in ("glassq.target", "glassq-web.service", "glassq-worker.service", "glassq-web.socket"):
        assert glassq.active(unit), glassq.tells(f"systemctl status {unit}")
    assert glassq.ping("first", "fail") == ["200", "200"]
    wait_for(lambda: "as it was asked" in glassq.tells("glassq buried"), "the second to be buried")
    wait_for(lambda: "done delivery=" in glassq.log("glassq-worker"), "the first to be worked")
    doctor = glassq.tells("glassq doctor")
    for line in ("is written to it", "4 wait for jobs", "says: ready"):
        assert line in doctor


def test_a_service_sees_its_own_secrets_and_no_others(glassq: Machine) -> None:
    def seen(unit: str) -> str:
        return glassq.run(f"nsenter -t {glassq.pid(unit)} -m ls /etc/glassq/secrets 2>/dev/null || true")

    assert seen("glassq-web").split() == ["mirror-verify-tokens"]
    assert seen("glassq-worker").split() == ["client-secret", "credentials-key"]
    assert seen("glassq-beanstalkd") == ""


def test_a_program_in_the_group_adds_tasks_and_reads_no_secret(glassq: Machine) -> None:
    glassq.run("useradd app")
    add = "runuser -u app -- /opt/glassq/bin/python /usr/local/share/add.py"
    assert "Permission denied" in glassq.tells(add)
    glassq.run("usermod -aG glassq-tasks app")
    # the pool, and not the program, may have been the first to write that database
    assert glassq.run(f"{add} 2>/dev/null") == "taken"
    wait_for(lambda: "target default cannot be reached" in glassq.log("glassq-worker"), "the pool to take the task")
    assert "Permission denied" in glassq.tells("runuser -u app -- cat /etc/glassq/secrets/credentials-key")


@pytest.mark.parametrize("unit", ["glassq-web", "glassq-worker", "glassq-beanstalkd"])
def test_a_service_that_is_killed_comes_back(glassq: Machine, unit: str) -> None:
    before = glassq.pid(unit)
    glassq.run(f"kill -9 {before}")
    wait_for(lambda: glassq.active(unit) and glassq.pid(unit) not in (before, "0"), f"{unit} to come back")
    assert glassq.ping(f"after-{unit}") == ["200"]


def test_a_restart_of_the_intake_refuses_no_ping(glassq: Machine) -> None:
    statuses: list[str] = []
    sender = threading.Thread(
        target=lambda: statuses.extend(glassq.ping(*(f"during-{number}" for number in range(300))))
    )
    sender.start()
    for _ in range(2):
        glassq.run("systemctl restart glassq-web.service")
    sender.join()
    assert statuses == ["200"] * 300


def test_wrong_settings_are_named_and_once_mended_all_is_up_by_itself(glassq: Machine) -> None:
    glassq.edit(SETTINGS, "workers = 2", "workers = 0")
    glassq.tells("systemctl restart glassq-web.service glassq-worker.service")
    for unit in ("glassq-web", "glassq-worker"):
        wait_for(lambda unit=unit: "[intake] workers = 0" in glassq.log(unit), "the mistake to be named")
    # pings knock meanwhile, and may not wear the socket out
    with subprocess.Popen(glassq.command("python3", "/usr/local/share/ping.py", WEB, "waits"), stdout=-1) as ping:
        wait_for(lambda: glassq.log("glassq-web").count("[intake] workers = 0") > 4, "it to be tried again and again")
        glassq.edit(SETTINGS, "workers = 0", "workers = 2")
        assert ping.communicate(timeout=60)[0] == b"200\n"
    wait_for(lambda: glassq.active("glassq-worker"), "the pool to come back")
    assert glassq.active("glassq-web.socket")


def test_another_address_and_another_queue_take_one_setting_each(glassq: Machine) -> None:
    elsewhere = "systemd-run --unit=elsewhere -p User=beanstalkd -p StateDirectory=elsewhere"
    glassq.run(f"{elsewhere} beanstalkd -l 127.0.0.1 -p 11300 -b /var/lib/elsewhere -f0 -z 131072")
    glassq.edit(SETTINGS, "beanstalk:///run/glassq/beanstalkd.sock", "beanstalk://127.0.0.1:11300")
    glassq.edit(SETTINGS, 'bind = "127.0.0.1:8080"', 'bind = "127.0.0.1:8081"')
    glassq.run("systemctl daemon-reload && systemctl restart glassq.target")
    wait_for(lambda: glassq.active("glassq-worker"), "the pool to come back")
    assert glassq.ping("elsewhere", to="http://127.0.0.1:8081") == ["200"]
    said = glassq.run("glassq status")
    assert "beanstalk://127.0.0.1:11300" in said
    assert "empty" in said
    glassq.edit(SETTINGS, "beanstalk://127.0.0.1:11300", "beanstalk:///run/glassq/beanstalkd.sock")
    glassq.edit(SETTINGS, 'bind = "127.0.0.1:8081"', 'bind = "127.0.0.1:8080"')
    glassq.run("systemctl daemon-reload && systemctl restart glassq.target")
    assert glassq.ping("back") == ["200"]


def test_an_upgrade_keeps_settings_and_takes_pings_all_the_while(glassq: Machine) -> None:
    before, web = (glassq.root / SETTINGS).read_text(), glassq.pid("glassq-web")
    statuses: list[str] = []
    sender = threading.Thread(target=lambda: statuses.extend(glassq.ping(*(f"up-{number}" for number in range(300)))))
    sender.start()
    glassq.run("dpkg -i /root/glassq.deb")
    wait_for(lambda: glassq.active("glassq-web") and glassq.pid("glassq-web") != web, "the intake to be restarted")
    sender.join()
    assert statuses == ["200"] * 300
    assert (glassq.root / SETTINGS).read_text() == before


def test_a_removal_keeps_the_queue_and_a_purge_says_what_it_takes(glassq: Machine) -> None:
    glassq.run("dpkg -r glassq")
    assert glassq.run("find /proc -maxdepth 1 -user glassq") == ""
    assert not (glassq.root / "opt/glassq").exists()
    glassq.run("dpkg -i /root/glassq.deb && systemctl enable --now glassq.target")
    wait_for(lambda: glassq.active("glassq-worker"), "the pool to come back")
    # what was buried in the beginning
    assert "as it was asked" in glassq.run("glassq buried")

    said = glassq.run("dpkg --purge glassq 2>&1")
    for directory in ("etc/glassq", "var/lib/glassq-beanstalkd", "var/spool/glassq", "var/lib/glassq"):
        assert f"removing /{directory} (" in said
        assert not (glassq.root / directory).exists()
    assert glassq.run("systemctl list-units --no-legend --all --state=active,failed 'glassq*'") == ""
