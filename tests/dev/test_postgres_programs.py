"""Where a stack's own PostgreSQL comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq.dev import postgres, postgres_programs
from glassq.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path


def programs(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).touch(mode=0o755)
    return directory


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without PostgreSQL, whose distribution would have it in DIRECTORY/usr/VERSION/bin."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(postgres_programs, "ELSEWHERE", (f"{tmp_path}/usr/*/bin".removeprefix("/"),))
    monkeypatch.setattr(postgres_programs, "WHEEL", "no_such_wheel")
    # pytest's directories are for their owner alone
    monkeypatch.setattr(postgres_programs, "_open_to_all", lambda _place: True)
    return tmp_path


def test_without_any_one_line_says_what_to_install(machine: Path) -> None:
    with pytest.raises(StackError, match=r"^PostgreSQL is not installed: apt install postgresql .*make demo ENGINE=p"):
        postgres.require_postgres()


def test_path_comes_first_then_the_newest_of_the_distribution_then_the_wheel(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = machine / "site" / "a_wheel"
    in_wheel = programs(wheel / "pginstall18" / "bin", "initdb", "postgres")
    (wheel / "__init__.py").touch()
    monkeypatch.syspath_prepend(wheel.parent)
    monkeypatch.setattr(postgres_programs, "WHEEL", wheel.name)
    assert postgres_programs.require_programs() == in_wheel
    programs(machine / "usr" / "9" / "bin", "initdb", "postgres")
    newest = programs(machine / "usr" / "15" / "bin", "initdb", "postgres")
    # a client alone is no server
    programs(machine / "usr" / "16" / "bin", "psql")
    assert postgres_programs.require_programs() == newest
    on_path = programs(machine / "mine", "initdb", "postgres")
    monkeypatch.setenv("PATH", f"/nowhere:{on_path}")
    assert postgres_programs.require_programs() == on_path


def test_what_the_servers_user_cannot_come_to_is_no_server_for_root(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_programs, "server_user", lambda: (65534, 65534))
    monkeypatch.setattr(postgres_programs, "_open_to_all", lambda place: "home" not in place.parts)
    monkeypatch.setenv("PATH", f"{programs(machine / 'home', 'initdb', 'postgres')}:/nowhere")
    with pytest.raises(StackError, match="PostgreSQL is not installed"):
        postgres_programs.require_programs()


def test_without_psycopg_no_server_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "find_spec", lambda _name: None)
    with pytest.raises(StackError, match=r"^psycopg is not installed: pip install 'glassq\[postgres\]'"):
        postgres.require_postgres()
