"""The booted machine gets another version, and in the end is bare again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from glassq import __version__
from tests.system.load import Load
from tests.system.machine import SETTINGS, Machine
from tests.system.programs import run

if TYPE_CHECKING:
    from pathlib import Path

UPGRADED = ("glassq-web", "glassq-worker")
NEXT = f"{__version__}.post1"
STATE = (
    "/etc/glassq", "/var/lib/glassq-beanstalkd", "/var/spool/glassq", "/var/lib/glassq", "/var/lib/glassq-tasks",
    "/var/cache/glassq",
)  # fmt: skip
GROUPS = ("glassq-tasks", "glassq-clients", "glassq-console", "glassq-operators")
# What a machine writes by itself, and what these tests have put there.
THEIRS = re.compile(
    r"/(dev|proc|sys|run|tmp|root|var/(log|cache|tmp)|var/lib/(dpkg|systemd|elsewhere))(/|$)"
    r"|/etc/(passwd|group|shadow|gshadow)-|/etc/\.pwd\.lock"
)


@pytest.fixture(scope="session")
def next_package(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package under another version."""
    directory = tmp_path_factory.mktemp("next")
    run("dpkg-deb", "--raw-extract", package, directory / "tree")
    [module] = directory.glob("tree/opt/glassq/lib/python3*/site-packages/glassq/__init__.py")
    for file in (module, directory / "tree/DEBIAN/control"):
        file.write_text(file.read_text().replace(__version__, NEXT))
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", directory / "tree", directory / "glassq.deb")
    return directory / "glassq.deb"


def test_an_upgrade_costs_no_ping_and_keeps_settings(glassq: Machine, next_package: Path) -> None:
    settings, before = (glassq.root / SETTINGS).read_text(), {unit: glassq.pid(unit) for unit in UPGRADED}
    (glassq.root / "root/next.deb").write_bytes(next_package.read_bytes())
    with Load(glassq, "upgrade") as load:
        glassq.shows("dpkg -i /root/next.deb | grep -v '^(Reading'")
        for unit, pid in before.items():
            glassq.wait_active(unit, instead_of=pid)
    assert load.sent_again() == set()
    assert glassq.shows("glassq --version") == f"glassq {NEXT}"
    assert (glassq.root / SETTINGS).read_text() == settings


def test_a_removal_keeps_the_queue(glassq: Machine) -> None:
    buried = glassq.run("glassq buried --json")
    assert "as it was asked" in buried
    glassq.shows("dpkg -r glassq 2>&1 | grep '^glassq:'")
    assert glassq.run("find /proc -maxdepth 1 -user glassq") == ""
    assert not (glassq.root / "opt/glassq").exists()
    glassq.run("dpkg -i /root/glassq.deb && systemctl enable --now glassq.target")
    glassq.wait_active("glassq-worker")
    # what was buried in the beginning
    assert "as it was asked" in glassq.run("glassq buried")


def test_a_purge_leaves_nothing_but_what_it_says(glassq: Machine, files_before: set[str]) -> None:
    said = glassq.shows("dpkg --purge glassq 2>&1 | grep '^glassq:'")
    for directory in STATE:
        assert f"removing {directory} (" in said
    assert f"kept: the user glassq and the groups {', '.join(GROUPS[:-1])} and {GROUPS[-1]}" in said
    left = sorted(path for path in glassq.files() - files_before if not THEIRS.match(path))
    glassq.transcript.say(f"left on the disk: {', '.join(left) or 'nothing'}")
    assert left == []
    assert glassq.run("systemctl list-units --no-legend --all --state=active,failed 'glassq*'") == ""
    users = glassq.shows(f"getent passwd glassq; getent group {' '.join(GROUPS)}")
    assert [line.split(":")[0] for line in users.splitlines()] == ["glassq", *GROUPS]
