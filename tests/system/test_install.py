"""`make install` and `make uninstall` under a DESTDIR, and what is in the Debian package."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from glassq import __version__
from glassq.settings import Settings, parse
from tests.conftest import PATIENCE, ROOT
from tests.system.programs import PYTHON, need, run
from tests.test_docs import dead_links

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


def test_descriptions_of_apis_that_are_not_used_are_left_out(root: Path, tmp_path: Path) -> None:
    assert not [*root.rglob("discovery_cache/documents")]
    make = "from glassq.settings import parse; from glassq.glass.api import MirrorApi; "
    make += "MirrorApi(parse(open(sys.argv[1]).read(), sys.argv[1]), None)"
    secret = tmp_path / "client-secret"
    secret.write_text("s\n")
    settings = tmp_path / "glassq.toml"
    settings.write_text(f'[glass]\nclient_id = "1"\nclient_secret_file = "{secret}"\n')
    run(root / PREFIX[1:] / "bin/python", "-c", f"import sys; {make}", settings)
    # more than half of what Google's libraries bring; what the tests before have compiled is not installed
    files = [path for path in (root / PREFIX[1:]).rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    assert sum(path.stat().st_size for path in files) < 150 << 20


def test_units_and_command_name_the_prefix(root: Path) -> None:
    local = root / "usr/local"
    assert f"ExecStart={PREFIX}/bin/glassq-web" in (local / "lib/systemd/system/glassq-web.service").read_text()
    assert f"exec {PREFIX}/bin/glassq " in (local / "bin/glassq").read_text()
    for path in local.rglob("*"):
        assert path.is_dir() or b"/opt/glassq" not in path.read_bytes(), path


def test_the_manual_is_there_and_without_a_mistake(root: Path) -> None:
    pages = sorted((root / "usr/local/share/man").rglob("*.gz"))
    assert {"glassq.1.gz", "glassq-kick.1.gz", "glassq-worker.8.gz", "glassq.toml.5.gz"} <= {
        page.name for page in pages
    }
    for page in pages:
        text = run(need("gunzip", "gzip"), "--stdout", page)
        for lint in (["groff", "-man", "-ww", "-z"], ["mandoc", "-T", "lint", "-W", "warning"]):
            need(lint[0], "groff-base mandoc")
            done = subprocess.run(lint, input=text, capture_output=True, text=True)
            assert (done.stdout, done.stderr) == ("", ""), page
    shown = run(need("man", "man-db"), "--local-file", root / "usr/local/share/man/man1/glassq-kick.1.gz", MANWIDTH=80)
    assert "--canary" in shown
    for page in (root / "usr/local/share/man").rglob("*"):
        assert page.is_dir() or page.name.startswith("glassq")


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose shell finds glassq."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}


@pytest.mark.parametrize(
    ("shell", "options", "script", "load"),
    [
        ("bash", ["--norc", "-i"], "bash-completion/completions/glassq", "source {script}"),
        (
            "zsh",
            ["-f", "-i"],
            "zsh/site-functions/_glassq",
            "fpath=({script.parent} $fpath); autoload -U compinit; compinit -uD",
        ),
    ],
    ids=["bash", "zsh"],
)
def test_a_shell_completes_by_what_is_installed(
    root: Path, here: dict[str, str], shell: str, options: list[str], script: str, load: str
) -> None:
    load = load.format(script=root / "usr/local/share" / script)
    command = [need(shell, shell), *options]
    keyboard, terminal = pty.openpty()
    running = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=here, start_new_session=True
    )
    os.close(terminal)
    try:
        os.write(keyboard, f"{load}\nglassq stat\t".encode())
        seen = b""
        while b"glassq status" not in seen:
            assert select.select([keyboard], [], [], PATIENCE)[0], seen
            seen += os.read(keyboard, 4096)
    finally:
        running.kill()
        running.wait()
        os.close(keyboard)


def test_fish_completes_by_what_is_installed(root: Path, here: dict[str, str]) -> None:
    script = root / "usr/local/share/fish/vendor_completions.d/glassq.fish"
    said = run(need("fish", "fish"), "--no-config", "--command", f"source {script}; complete -C 'glassq stat'", **here)
    assert said.startswith("status\tWhat waits, ")


def test_the_settings_fit_the_units(root: Path) -> None:
    ours = settings(root)
    assert ours.queue.url == QUEUE
    secrets = "/etc/glassq/secrets/"
    assert "mirror" in ours.sources
    assert ours.sources["mirror"].verify_tokens_file == f"{secrets}mirror-verify-tokens"
    assert ours.glass.client_secret_file == f"{secrets}client-secret"
    assert ours.glass.credentials_key_file == f"{secrets}credentials-key"
    bound = [
        line.rpartition(":")[2]
        for unit in ("glassq-web.service", "glassq-worker.service")
        for line in (ROOT / "systemd" / unit).read_text().splitlines()
        if line.startswith("BindReadOnlyPaths=")
    ]
    # the intake's are all in this directory
    assert bound == [secrets.rstrip("/"), ours.glass.client_secret_file, ours.glass.credentials_key_file]
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
    assert "is not a virtual environment" in done.stderr
    assert theirs.exists()


def test_the_documents_of_the_package_lead_somewhere(package: Path, tmp_path: Path) -> None:
    run("dpkg-deb", "--extract", package, tmp_path)
    pages = list((tmp_path / "usr/share/doc/glassq").rglob("*.md"))
    assert {"README.md", "operating.md"} <= {page.name for page in pages}
    assert {page.name: dead for page in pages if (dead := dead_links(page))} == {}


def test_the_package_keeps_edited_settings_and_brings_a_queue_that_can_be_left_out(package: Path) -> None:
    depends = run("dpkg-deb", "--field", package, "Depends")
    assert "beanstalkd" not in depends
    assert "beanstalkd" in run("dpkg-deb", "--field", package, "Recommends")
    assert "python3 (>= 3." in depends
    conffiles = run("dpkg-deb", "--info", package, "conffiles")
    assert conffiles.split() == ["/etc/glassq/glassq.toml", "/etc/glassq/queue.yaml"]
    owners = {line.split()[1] for line in run("dpkg-deb", "--contents", package).splitlines()}
    assert owners == {"root/root"}
