"""The manual pages, as tools/manual.py writes them."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from glassq import __version__
from glassq.cli.main import COMMANDS, SECTIONS, cli
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT_CONTEXT = click.Context(cli, info_name="glassq", **cli.context_settings)


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, ROOT / "tools" / "manual.py", directory], check=True)
    return directory


def read(manual: Path, name: str) -> str:
    """The page as a reader sees it, all of it on one line: no roff request is left in it."""
    text = (manual / name).read_text("ascii")
    text = re.sub(r"^\.(TH|SH|SS|TP|PP|nf|fi|nh|ad).*?(\".*\")?$", r"\2", text, flags=re.MULTILINE)
    for roff, plain in {r"\(rs": "\\", r"\-": "-", r"\(aq": "'", r"\(ti": "~", r"\(dq": '"', r"\&": ""}.items():
        text = text.replace(roff, plain)
    return " ".join(re.sub(r"\\f.", "", text).split())


def below(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            each = command.get_command(context, name)
            assert each is not None
            if each.hidden:
                # a name of the last release
                continue
            yield from below(each, click.Context(each, info_name=name, parent=context))


def test_help_lists_every_command_under_one_heading() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_a_command_says_all_that_its_help_says(manual: Path, name: str) -> None:
    page = read(manual, f"glassq-{name}.1")
    command = cli.get_command(ROOT_CONTEXT, name)
    assert command is not None
    for each, context in below(command, click.Context(command, info_name=name, parent=ROOT_CONTEXT)):
        assert f"{context.command_path} " in page
        for parameter in each.get_params(context):
            if record := parameter.get_help_record(context):
                assert all(" ".join(part.split()).replace("`", "") in page for part in record)
        said = " ".join((each.help or "").replace("\b", "").replace("`", "").split())
        assert said in page
        assert " ".join((each.epilog or "").lstrip("\b\n").partition("\n")[2].split()) in page


def test_the_overview_names_every_command_exit_status_and_page(manual: Path) -> None:
    page = read(manual, "glassq.1")
    assert __version__ in (manual / "glassq.1").read_text()
    for name, (_, words) in COMMANDS.items():
        assert f"{name} {words}" in page
        assert f"glassq-{name}(1)" in page
    for status in ("69 the queue cannot be reached", "78 the configuration is wrong"):
        assert status in page
    others = {path.name for path in manual.iterdir()} - {"glassq.1"}
    daemons = {f"glassq-{name}.8" for name in ("console", "syncer", "tasks", "web", "worker")}
    assert others == daemons | {"glassq.toml.5"} | {f"glassq-{each}.1" for each in COMMANDS}


@pytest.mark.parametrize("name", ["glassq-console", "glassq-tasks", "glassq-web", "glassq-worker"])
def test_the_page_of_a_daemon_has_its_options_and_signals(manual: Path, name: str) -> None:
    page = read(manual, f"{name}.8")
    for says in (f"{name} [-h] [--config FILE]", "--config FILE the settings file", "TERM", "HUP", "78 The settings"):
        assert says in page


def test_every_setting_has_its_default_and_reason(manual: Path) -> None:
    page = read(manual, "glassq.toml.5")
    for line in (ROOT / "conf" / "glassq.toml").read_text().splitlines():
        if not line.startswith("# ---"):
            assert " ".join(line.removeprefix("#").replace("`", "").split()) in page, line


def test_a_line_of_a_page_is_either_a_request_of_ours_or_text(manual: Path) -> None:
    ours = {"TH", "SH", "SS", "TP", "PP", "nf", "fi", "nh", "ad"}
    for path in manual.iterdir():
        for line in path.read_text("ascii").splitlines():
            assert not line.startswith("'")
            assert not line.startswith(".") or line[1:3] in ours, f"{path.name}: {line}"
            # a bare hyphen is no minus to be copied
            assert "-" not in line.replace("\\-", "") or line.startswith(".TH"), f"{path.name}: {line}"
