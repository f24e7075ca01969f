"""`glassq sources`, beside a real intake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Cli
from tests.conftest import Beanstalkd
from tests.intake.conftest import Web
from tests.intake.wire import TOKEN, body, request

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    directory = tmp_path_factory.mktemp("sources") / "web"
    server = Beanstalkd(tmp_path_factory.mktemp("beanstalkd"))
    runtime = directory / "run" / "glassq-web"
    runtime.mkdir(parents=True)
    made = Web(directory, server.url, tokens=f"another\n{TOKEN}", under=("env", f"RUNTIME_DIRECTORY={runtime}"))
    made.wait_ready()
    yield made
    made.stop()
    server.stop()


def cells(out: str, name: str) -> list[str]:
    """The cells of the row of a source."""
    (row,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
    return [cell.strip() for cell in row.split("  ") if cell.strip()]


def test_it_says_what_came_what_was_refused_and_which_secret_is_in_use(web: Web) -> None:
    cli = Cli(web.dir, "")
    before = cells(cli("sources").out, "mirror")
    assert before == ["mirror", "mirror", "/hooks/mirror", "0", "never", "-", "-", "1: never, 2: never"]
    assert web.ask(request(body())).status == 200
    assert web.ask(request(body(verifyToken="wrong"))).status == 403
    assert web.ask(request(body(verifyToken="wrong"))).status == 403
    assert web.ask(request(b"{")).status == 400
    said = cli("sources")
    assert (said.code, said.err) == (0, "")
    _, _, _, pings, last, refused, _, secrets = cells(said.out, "mirror")
    assert (pings, refused) == ("1", "2 wrong token, 1 malformed")
    assert last.endswith(" ago")
    assert secrets.startswith("1: never, 2: ")
    assert secrets.endswith(" ago")
    assert "since glassq-web was started" in said.out
    document = cli("sources", "--json").json
    (source,) = document["sources"]
    assert source["counted"]["refused"] == {"wrong token": 2, "malformed": 1}
    assert document["counting"] > 0
    assert TOKEN not in said.out + str(document)


def test_without_an_intake_it_says_what_the_settings_know_and_why_that_is_all(offline: Cli) -> None:
    tokens = offline.directory / "tokens"
    offline.configure(f'[sources.glass]\nkind = "mirror"\nverify_tokens_file = "{tokens}"\n')
    said = offline("sources")
    assert (said.code, said.err) == (0, "")
    assert "nothing is counted: no glassq-web runs with these settings" in said.out
    # a secret that is missing is told with the source that needs it
    assert cells(said.out, "glass")[:3] == ["glass", "mirror", "/hooks/glass"]
    assert f'! glass takes no pings: {offline.file}: [sources.glass] verify_tokens_file = "{tokens}"' in said.out
    tokens.write_text("s3cret\n")
    document = offline("sources", "--json").json
    assert document["sources"][0]["problem"] == ""
    assert document["counting"] is None
    assert "s3cret" not in str(document)


def test_settings_without_a_source_say_so(offline: Cli) -> None:
    assert offline("sources").out.startswith("the settings name no source")
