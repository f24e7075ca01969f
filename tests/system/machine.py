"""A machine of its own: a Debian that boots with systemd in a container (systemd-nspawn), without a network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import PATIENCE, ROOT, wait_for
from tests.system.programs import need, run

if TYPE_CHECKING:
    from tests.system.transcript import Transcript

# nspawn wants a /run that it may change; this one is the container's alone.
BOOT = """mount -t tmpfs tmpfs /run
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=$([ -e /sys/fs/cgroup/cgroup.controllers ] && echo 1 || echo 0)
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY
# should those who look after it end without a word, it goes down
exec setpriv --pdeathsig TERM \\
    systemd-nspawn -q -D "$0" --boot --private-network --register=no --keep-unit -M glassq-test --console=pipe
"""
# as wide as a transcript is read
ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS=120", "LC_ALL=C.UTF-8")
# from power on to the last of its units, in seconds
BOOTED = 120.0
WEB = "http://127.0.0.1:8080"
SETTINGS = "etc/glassq/glassq.toml"


class Machine:
    """A root directory, booted. `run` and its like are a shell as root in there; `transcript` hears what is `shown`."""

    def __init__(self, root: Path, transcript: Transcript) -> None:
        self.root = root
        self.transcript = transcript
        self._log = root.parent / "console.log"
        self._on()

    # -- on and off ----------------------------------------------------------------------------------------------

    def _on(self) -> None:
        with self._log.open("ab") as console:
            self._nspawn = subprocess.Popen(
                [need("unshare", "util-linux"), "-m", "--propagation", "private", "sh", "-c", BOOT, str(self.root)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )

    def wait_booted(self) -> None:
        wait_for(lambda: not self._running() or self._is_up(), "the machine to boot", BOOTED)
        assert self._running(), self._log.read_text(errors="replace")

    def reboot(self) -> None:
        """Down in order, and up again. Who was `beside` it has the network of before."""
        self.tells("systemctl reboot")
        self._nspawn.wait(PATIENCE)
        self._on()
        self.wait_booted()

    def off(self) -> None:
        if self._running():
            # nspawn passes it on as an orderly shutdown
            self._nspawn.send_signal(signal.SIGTERM)
        try:
            self._nspawn.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.kill(self._init(), signal.SIGKILL)
            self._nspawn.wait(PATIENCE)

    def _running(self) -> bool:
        return self._nspawn.poll() is None

    def _is_up(self) -> bool:
        return self.tells("systemctl is-system-running") in ("running", "degraded")

    def _init(self) -> int:
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        return int((children.read_text().split() or ["0"])[0])

    # -- commands ------------------------------------------------------------------------------------------------

    def command(self, *command: str) -> list[str]:
        """What runs a command in there."""
        return ["nsenter", "-t", str(self._init()), "-m", "-u", "-i", "-n", "-p", "env", "-i", *ENVIRONMENT, *command]

    def beside(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """A program of this tree in the machine's network: it is spoken to in lines, and ends with its input."""
        command = ["nsenter", "-t", str(self._init()), "-n", sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def run(self, command: str) -> str:
        """What a shell's command prints in there; fails the test where it fails."""
        return run(*self.command("sh", "-c", command)).strip()

    def tells(self, command: str) -> str:
        """The same of one that may fail."""
        done = subprocess.run(self.command("sh", "-c", command), capture_output=True, text=True)
        return (done.stdout + done.stderr).strip()

    def shows(self, command: str, lines: int = 30) -> str:
        """The same, for the transcript too: the first `lines` of it."""
        said = self.tells(command)
        self.transcript.ran(command, said, lines)
        return said

    # -- files ---------------------------------------------------------------------------------------------------

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        # a link in there leads to a file of this machine's
        assert file.resolve().is_relative_to(self.root.resolve()), file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def edit(self, path: str, before: str, after: str) -> None:
        """Replaces the one place that says `before`."""
        text = (self.root / path).read_text()
        assert text.count(before) == 1, before
        (self.root / path).write_text(text.replace(before, after))

    def files(self) -> set[str]:
        """Every path on its disk."""
        return {
            os.path.join(directory, name).removeprefix(str(self.root))  # noqa: PTH118 - many thousands
            for directory, directories, names in os.walk(self.root)
            for name in (*directories, *names)
        }

    # -- services ------------------------------------------------------------------------------------------------

    def ping(self, *items: str, to: str = WEB) -> list[str]:
        return self.run(f"python3 /usr/local/share/ping.py {to} {' '.join(items)}").split()

    def active(self, unit: str) -> bool:
        return self.tells(f"systemctl is-active {unit}") == "active"

    def pid(self, unit: str) -> str:
        """Of its main process; "0" where there is none."""
        return self.run(f"systemctl show -P MainPID {unit}")

    def children(self, unit: str) -> list[str]:
        """The process ids of its main process' children."""
        return self.tells(f"cat /proc/{self.pid(unit)}/task/*/children").split()

    def log(self, unit: str) -> str:
        return self.run(f"journalctl --no-pager -o cat -u {unit}")

    def wait_active(self, *units: str, instead_of: str = "0") -> None:
        """Until they run; `instead_of` is the main process that is not to be it any more."""
        for unit in units:
            wait_for(
                lambda unit=unit: self.active(unit) and self.pid(unit) not in ("0", instead_of), f"{unit} to come up"
            )
