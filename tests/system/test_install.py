"""`make install` and `make uninstall` under a DESTDIR, and what is in the Debian package."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from glassq import __version__
from glassq.settings import Settings, parse
from tests.conftest import ROOT
from tests.system.conftest import PYTHON, run

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "/srv/glassq"
QUEUE = "beanstalk:///run/glassq/beanstalkd.sock"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine's root directory, with glassq installed under another prefix than the usual one."""
    directory = tmp_path_factory.mktemp("root")
    run(ROOT / "tools" / "install", DESTDIR=directory, PREFIX=PREFIX, PYTHON=PYTHON)
    return directory


def settings(root: Path) -> Settings:
    file = root / "etc/glassq/glassq.toml"
    return parse(file.read_text(), str(file))


def test_the_programs_run(root: Path) -> None:
    for name in ("glassq", "glassq-web", "glassq-worker"):
        # by its interpreter, for its first line names the place where it will be
        said = run(root / PREFIX[1:] / "bin/python", root / PREFIX[1:] / "bin" / name, "--version")
        assert __version__ in said


def test_nothing_tells_where_it_was_made(root: Path) -> None:
    for place in (root, ROOT):
        found = subprocess.run(["grep", "-rlF", str(place), str(root)], capture_output=True, text=True)
        assert found.stdout == ""


def test_what_only_developers_need_is_left_out(root: Path) -> None:
    packages = {path.name for path in (root / PREFIX[1:]).glob("lib/python3*/site-packages/*")}
    assert {"gunicorn", "falcon", "greenstalk", "glassq"} <= packages
    assert not {"pytest", "mypy", "hypothesis", "flask", "PIL", "tests"} & packages


def test_units_and_command_name_the_prefix(root: Path) -> None:
    local = root / "usr/local"
    assert f"ExecStart={PREFIX}/bin/glassq-web" in (local / "lib/systemd/system/glassq-web.service").read_text()
    assert f"exec {PREFIX}/bin/glassq " in (local / "bin/glassq").read_text()
    for path in local.rglob("*"):
        assert path.is_dir() or "/opt/glassq" not in path.read_text(), path


def test_the_settings_fit_the_units(root: Path) -> None:
    ours = settings(root)
    assert ours.queue.url == QUEUE
    secrets = "/etc/glassq/secrets/"
    assert ours.sources.mirror is not None
    assert ours.sources.mirror.verify_tokens_file == f"{secrets}mirror-verify-tokens"
    assert ours.glass.client_secret_file == f"{secrets}client-secret"
    assert ours.glass.credentials_key_file == f"{secrets}credentials-key"
    for unit in ("glassq-web.service", "glassq-worker.service"):
        for line in (ROOT / "systemd" / unit).read_text().splitlines():
            if line.startswith("BindReadOnlyPaths="):
                assert line.rpartition(":")[2] in (
                    ours.sources.mirror.verify_tokens_file,
                    ours.glass.client_secret_file,
                    ours.glass.credentials_key_file,
                )
    assert "/var/lib/glassq-tasks/task-names.db" in (root / "etc/glassq/glassq.toml").read_text()


def test_an_image_gets_no_secrets(root: Path) -> None:
    assert not (root / "etc/glassq/secrets").exists()


def test_an_upgrade_keeps_what_was_edited_and_an_uninstallation_too(root: Path) -> None:
    edited = root / "etc/glassq/glassq.toml"
    before = edited.read_text()
    edited.write_text(before.replace('level = "info"', 'level = "debug"'))
    stale = root / PREFIX[1:] / "stale.py"
    stale.touch()
    run(ROOT / "tools" / "install", DESTDIR=root, PREFIX=PREFIX, PYTHON=PYTHON)
    assert settings(root).log.level == "debug"
    assert (root / PREFIX[1:] / "share/glassq/glassq.toml").read_text() == before
    assert not stale.exists()

    run(ROOT / "tools" / "uninstall", DESTDIR=root, PREFIX=PREFIX)
    left = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert left == ["etc/glassq/glassq.toml", "etc/glassq/queue.yaml"]


def test_a_directory_that_is_not_ours_is_not_overwritten(tmp_path: Path) -> None:
    theirs = tmp_path / PREFIX[1:] / "file"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    environment = {"DESTDIR": str(tmp_path), "PREFIX": PREFIX, "PYTHON": PYTHON, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([ROOT / "tools/install"], env=environment, capture_output=True, text=True)
    assert done.returncode == 69
    assert "is no environment of ours" in done.stderr
    assert theirs.exists()


def test_the_package_keeps_edited_settings_and_needs_beanstalkd(package: Path) -> None:
    depends = run("dpkg-deb", "--field", package, "Depends")
    assert "beanstalkd" in depends
    assert "python3 (>= 3." in depends
    conffiles = run("dpkg-deb", "--info", package, "conffiles")
    assert conffiles.split() == ["/etc/glassq/glassq.toml", "/etc/glassq/queue.yaml"]
    owners = {line.split()[1] for line in run("dpkg-deb", "--contents", package).splitlines()}
    assert owners == {"root/root"}
