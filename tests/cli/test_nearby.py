"""`glassq` finds the settings of `glassq dev`, and never those of somebody else."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from glassq.cli.nearby import settings_nearby
from glassq.settings import DEFAULT_FILE
from tests import forked

if TYPE_CHECKING:
    from pathlib import Path


def settings_in(place: Path) -> Path:
    file = place / "var" / "glassq.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'[ledger]\nurl = "sqlite:///{place.name}.db"\n')
    return file


def test_settings_are_found_here_and_in_the_directories_above(tmp_path: Path) -> None:
    file = settings_in(tmp_path / "clone")
    below = tmp_path / "clone" / "examples" / "shell"
    below.mkdir(parents=True)
    assert settings_nearby(tmp_path / "clone").file == file
    found = settings_nearby(below)
    assert found.file == file
    assert found.looked == [f"{below}/var/glassq.toml", f"{below.parent}/var/glassq.toml"]
    assert settings_nearby(tmp_path).file is None


def test_the_nearest_settings_are_used(tmp_path: Path) -> None:
    settings_in(tmp_path)
    nearest = settings_in(tmp_path / "inner")
    assert settings_nearby(tmp_path / "inner").file == nearest


@pytest.mark.parametrize("shared", ["var/glassq.toml", "var"])
def test_settings_that_others_can_write_are_not_used_but_named(tmp_path: Path, shared: str) -> None:
    file = settings_in(tmp_path)
    (tmp_path / shared).chmod(0o777)
    found = settings_nearby(tmp_path)
    assert found.file is None
    assert found.looked[0] == f"{file} (others own it or can write it: not used)"


def test_nothing_is_looked_for_in_and_above_a_directory_that_others_can_write(tmp_path: Path) -> None:
    settings_in(tmp_path)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    settings_in(shared)
    (shared / "mine").mkdir()
    assert settings_nearby(shared).looked == []
    assert settings_nearby(shared / "mine").file is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("theirs", ["var/glassq.toml", "var", "."])
def test_a_strangers_settings_are_not_used(tmp_path: Path, theirs: str) -> None:
    settings_in(tmp_path)
    os.chown(tmp_path / theirs, 12_345, 12_345)
    assert settings_nearby(tmp_path).file is None


def glassq(place: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "GLASSQ_CONFIG"}
    return subprocess.CompletedProcess(arguments, *forked.run(arguments, {**environ, **env}, cwd=place))


@pytest.mark.skipif(DEFAULT_FILE.exists(), reason="glassq is installed here, and its settings go first")
def test_commands_take_them_where_no_others_are_named(tmp_path: Path) -> None:
    settings_in(tmp_path)
    other = settings_in(tmp_path / "other")
    below = tmp_path / "below"
    below.mkdir()
    assert f'"sqlite:///{tmp_path.name}.db"' in glassq(below, "config", "check").stdout
    assert '"sqlite:///other.db"' in glassq(below, "--config", str(other), "config", "check").stdout
    assert '"sqlite:///other.db"' in glassq(below, "config", "check", GLASSQ_CONFIG=str(other)).stdout
    # a hint needs no --config that its reader does not need
    assert "`glassq doctor`" in glassq(below, "status").stderr


@pytest.mark.skipif(DEFAULT_FILE.exists(), reason="glassq is installed here, and its settings go first")
def test_without_any_it_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    said = glassq(tmp_path, "status")
    assert said.returncode == 78
    assert said.stderr.startswith(f"glassq: no settings file: looked at {DEFAULT_FILE}, {tmp_path}/var/glassq.toml")
    assert said.stderr.endswith("; name a file with --config or GLASSQ_CONFIG, or begin with `glassq dev`\n")
