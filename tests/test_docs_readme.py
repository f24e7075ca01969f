"""README's first minutes and the pages that go on from there, as somebody pastes them who runs `glassq dev`."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests import forked
from tests.cli.test_dev import dev, says
from tests.conftest import ROOT, Process, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Reader:
    """Somebody in a directory where `glassq dev` runs, who pastes what a page has."""

    def __init__(self, process: Process, home: Path, port: int) -> None:
        self.process, self.home, self.port = process, home, port
        self.config, self.handlers = home / "var" / "glassq.toml", home / "var" / "handlers.py"

    def block(self, page: str, begins: str) -> str:
        """The one block of a page that begins so, in whatever language, or indented as commands are."""
        text = (ROOT / page).read_text("utf-8")
        fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        indented = [textwrap.dedent(found) for found in re.findall(r"(?<=\n\n)((?:    .*\n)+)", text)]
        (block,) = [each for each in fenced + indented if each.startswith(begins)]
        return block

    def paste(self, command: str) -> str:
        """What a shell says to a command, here: with our port and our Python."""
        words = command.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        words = words.replace(".venv/bin/python", shlex.quote(sys.executable)).replace("/run/glassq/", "var/")
        done = subprocess.run(["sh", "-ec", words], cwd=self.home, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def glassq(self, command: str) -> str:
        """What `glassq ...` of a page says."""
        code, out, err = forked.run(command.removeprefix("glassq ").split(), cwd=self.home)
        assert code == 0, (command, out, err)
        return out

    def saves(self, settings: str = "", handlers: str = "") -> None:
        """Adds to both files, and waits until that is in effect."""
        before = self.process.output().count(": in effect")
        with self.handlers.open("a") as file:
            file.write(handlers)
        with self.config.open("a") as file:
            file.write(f"\n{settings}")
        wait_for(lambda: self.process.output().count(": in effect") > before, "the change to be in effect")

    def says(self, command: str, words: str) -> None:
        """Runs a command of ours until it says so: it waits some seconds for an outcome, and a loaded machine more."""
        wait_for(lambda: words in self.glassq(command), f"`glassq {command}` to say {words}")

    def worked(self, result: str) -> None:
        says(self.process, rf' done delivery=.* result="?{re.escape(result)}')


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    home, port = tmp_path_factory.mktemp("clone"), free_port()
    with dev(home, "--bind", f"127.0.0.1:{port}") as process:
        yield Reader(process, home, port)


def test_a_ping_of_ones_own_and_one_of_github_are_worked_as_the_readme_says(reader: Reader) -> None:
    first, tail = reader.block("README.md", "curl -i").split("\nglassq ")
    assert tail.startswith("tail")
    assert " 200 OK" in reader.paste(first)
    reader.worked("18 bytes")
    reader.handlers.write_text(reader.block("README.md", "from glassq import Bury, Delivery, Drop"))
    says(reader.process, "handlers.py: in effect$")
    reader.says("ping github --event push", ": done: 1 commits\n")


def test_another_sender_is_added_with_what_its_command_prints(reader: Reader) -> None:
    said = reader.glassq(reader.block("README.md", "glassq sources kinds"))
    found = re.search(r"^(\[sources.*?)\n\n[^\n]*:\n    (.*)", said, re.MULTILINE | re.DOTALL)
    assert found is not None
    reader.paste(found[2])
    reader.saves(found[1], "\n\ndef stripe(delivery: Delivery) -> str:\n    return delivery.labels['event']\n")
    reader.says("ping stripe", ": done: payment_intent.succeeded\n")


def test_tasks_are_added_from_python_by_curl_and_to_a_queue_of_ones_own(reader: Reader) -> None:
    page = "docs/tasks-http.md"
    (reader.home / "var" / "queue.yaml").write_text(reader.block(page, "queue:\n- name: mail"))
    route = reader.block("README.md", '[[routes]]\nsource = "push"')
    # the second page's tasks go to /send
    reader.saves(route + route.replace("/mail/*", "/send"), "\n\n" + reader.block("README.md", "import glassq"))
    reader.paste(reader.block("README.md", "export GLASSQ_CONFIG"))
    says(reader.process, "^tasks: POST ")
    reader.paste(reader.block("README.md", "curl --unix-socket"))
    wait_for(lambda: reader.process.output().count("sent to ada@example.com") == 2, "both tasks to be worked")
    reader.paste(reader.block(page, "curl --unix-socket /run/glassq/tasks.sock 'http"))
    reader.worked("sent to ann")
    added = reader.paste(reader.block(page, "curl --unix-socket /run/glassq/tasks.sock http"))
    assert json.loads(added)["queue"] == "mail"


def test_the_orders_of_the_handlers_page_reach_their_handler(reader: Reader) -> None:
    page = "docs/handlers.md"
    reader.paste("openssl rand -hex 32 > var/orders-token")
    settings = reader.block(page, "[sources.orders]").replace(
        "/etc/glassq/secrets/orders", f"{reader.home}/var/orders-token"
    )
    reader.saves(
        settings.replace("handlers:handle", "handlers:order"),
        "\n\ndef order(delivery: Delivery) -> str:\n    return delivery.labels['event']\n",
    )
    order = reader.block(page, '{"event": "order.paid"').strip()
    url = f"http://127.0.0.1:8080/hooks/orders -H 'Content-Type: application/json' -d '{order}'"
    assert "200 OK" in reader.paste(f'curl -i {url} -H "Authorization: Bearer $(cat var/orders-token)"')
    reader.worked("order.paid")


def test_a_schedule_is_run_now_and_says_what_became_of_it(reader: Reader) -> None:
    reader.saves(reader.block("README.md", "[[schedule]]"))
    reader.says("schedules run every-minute", "\ndone: done\n")
    assert "every-minute" in reader.glassq("schedules")
