"""Each sort of handler, and each way that an attempt can go, in a real pool: what an operator then reads.

    python -m tests.chaos.handlers [FILE]

writes a Markdown table of all of them, and under it what `glassq show` prints of each. Its end is 1 if a cell is not
what it has to be. test_handlers.py runs the same.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.cli.main import main as main_of_glassq
from tests.conftest import Beanstalkd, wait_for
from tests.push.targets import Asked, Script, Target
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    import socket

    from glassq.delivery import Delivery
    from tests.queues.raw import Queue

SORTS = ("function", "async def", "exec:", "URL", "steps")
# What is kicked was buried, and is done once its reason is mended. Budgets are of one attempt.
WAYS = ("done", "failing", "timing out", "killed", "buried", "kicked")

HANDLERS = """
import asyncio, os, signal, time
from pathlib import Path
from glassq import Bury

HERE = Path(__file__).parent

def hangs(delivery):
    way = delivery.labels["way"]
    if way == "failing":
        raise ValueError("the shop is shut")
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "buried" or way == "kicked" and not (HERE / "mended").exists():
        raise Bury("an order without an id")
    return way == "timing out"

def plain(delivery):
    if hangs(delivery):
        time.sleep(60)
    return "invoice 7"

async def later(delivery):
    if hangs(delivery):
        await asyncio.sleep(60)
    return "invoice 7"

def fetch(delivery):
    return "order 7"
"""
PROGRAM = """#!/bin/sh
refuse() { echo "an order without an id" >&2; exit 65; }
case $GLASSQ_LABEL_WAY in
    failing) echo "the shop is shut" >&2; exit 75 ;;
    "timing out") sleep 60 ;;
    killed) kill -9 $$ ;;
    buried) refuse ;;
    kicked) [ -e "$(dirname "$0")/mended" ] || refuse ;;
esac
echo "invoice 7"
"""
SETTINGS = """
[push]
names = "sqlite:///{home}/names.db"
[handlers."exec:./work.sh"]
exit_codes = {{ 65 = "bury" }}
[[routes]]
source = "orders"
match = {{ sort = "function" }}
handler = "handlers:plain"
[[routes]]
source = "orders"
match = {{ sort = "async def" }}
handler = "handlers:later"
concurrency = 8
[[routes]]
source = "orders"
match = {{ sort = "exec:" }}
handler = "exec:./work.sh"
[[routes]]
source = "orders"
match = {{ sort = "URL" }}
handler = "{url}/invoice"
concurrency = 8
[[routes]]
source = "orders"
match = {{ sort = "steps" }}
steps = ["handlers:fetch", {{ name = "invoice", handler = "handlers:plain" }}]
"""
# The reason that each cell must have, as a pattern.
REASONS = {
    ("failing", "function"): r"^ValueError: the shop is shut \(gave up",
    ("failing", "async def"): r"^ValueError: the shop is shut \(gave up",
    ("failing", "exec:"): r"^work.sh exited with 75 \(EX_TEMPFAIL\): the shop is shut \(gave up",
    ("failing", "URL"): r"/invoice answered 503 OK \(gave up",
    ("failing", "steps"): r"^step invoice: ValueError: the shop is shut \(gave up",
    ("timing out", "function"): "^the handler overran its deadline",
    ("timing out", "async def"): "^the handler overran its deadline",
    ("timing out", "exec:"): "^the handler overran its deadline",
    # on a busy machine the deadline may come before the client's own timeout
    ("timing out", "URL"): "/invoice did not answer in time|^the handler overran its deadline",
    ("timing out", "steps"): "^step invoice: the handler overran its deadline",
    ("killed", "function"): "ended without an outcome",
    ("killed", "async def"): "ended without an outcome",
    ("killed", "exec:"): "^work.sh was killed by SIGKILL",
    ("killed", "URL"): "ended without an outcome",
    ("killed", "steps"): "ended without an outcome",
    ("buried", "function"): "^an order without an id$",
    ("buried", "async def"): "^an order without an id$",
    ("buried", "exec:"): r"^work.sh exited with 65 \(EX_DATAERR\): an order without an id$",
    ("buried", "URL"): r"/invoice answered 500 OK \(gave up",
    ("buried", "steps"): "^step invoice: an order without an id$",
}


@dataclass(frozen=True)
class Cell:
    """What became of one delivery. `before` and `shown` are what `glassq show` printed, before and after the kicks."""

    sort: str
    way: str
    state: str
    reason: str
    result: str
    before: str
    shown: str

    @property
    def problem(self) -> str:
        """What is not as it has to be; "" if all is."""
        expected = {"done": "done", "kicked": "done"}.get(self.way, "buried")
        pattern = REASONS.get(("buried" if self.way == "kicked" else self.way, self.sort), "")
        result = '"status": 200' if self.sort == "URL" else "invoice 7"
        wrong = [
            f"is {self.state}, not {expected}" if self.state != expected else "",
            "" if re.search(pattern, self.reason) else f"its reason is not {pattern!r}",
            "" if expected != "done" or result in self.result else f"its result is not {result!r}",
            "" if self.reason in re.sub(r"\s+", " ", self.before) else "its reason is not shown",
            "" if self.way != "killed" or "killed by SIGKILL" in self.before else "what killed it is not shown",
        ]
        found = ", ".join(filter(None, wrong))
        return f"{self.sort}, {self.way}: {found}: {self}" if found else ""

    @property
    def text(self) -> str:
        """The cell in the table."""
        if self.way == "done":
            return f"done: `{self.result}`"
        if self.way == "kicked":
            return f"buried: `{self.reason}`; then done: `{self.result}`"
        return f"{self.state}: `{self.reason}`"


class Shop(Target):
    """The endpoint of the URL's route. It kills who asks what is to be killed."""

    def __init__(self, run: PoolRun) -> None:
        super().__init__()
        self._run = run

    def _answer(self, connection: socket.socket, script: Script, asked: Asked, used: int) -> bool:
        way = asked.body.decode()
        if way == "killed":
            for pid in self._run.children():
                os.kill(pid, signal.SIGKILL)
        refuses = way == "buried" or (way == "kicked" and not (self._run.dir / "mended").exists())
        status = 503 if way == "failing" else 500 if refuses else 200
        answer = Script(status, body=b"no order" if refuses else b"invoice 7")
        answer.instead = "hang" if way in ("timing out", "killed") else ""
        return super()._answer(connection, answer, asked, used)


class Table:
    """Runs it all, in this directory."""

    def __init__(self, directory: Path, server: Beanstalkd, look: Queue) -> None:
        self._look = look
        worker = {"processes": 2, "lane_processes": 1, "max_attempts": 1, "max_lost": 1}
        # the last part of the deadline is for the clean-up
        self._run = PoolRun(directory, server, look, deadline="5s", grace="3s", **worker)
        self._shop = Shop(self._run)
        self._put: dict[tuple[str, str], Delivery] = {}

    def cells(self) -> list[Cell]:
        """Every sort of handler in every way."""
        run = self._run
        run.write_handlers(HANDLERS)
        (run.dir / "work.sh").write_text(PROGRAM)
        (run.dir / "work.sh").chmod(0o755)
        with self._shop, run:
            run.write_settings("handlers:plain", SETTINGS.format(home=run.dir, url=self._shop.url))
            run.start().ready()
            self._work([(sort, way) for sort in SORTS for way in WAYS if way != "killed"])
            # one after the other: all that a child has under way dies with it
            for sort in SORTS:
                self._work([(sort, "killed")])
            before = {sort: self._show(sort, "kicked") for sort in SORTS}
            reasons = {job["delivery"]: job["reason"] for job in json.loads(self._glassq("buried", "--json"))["jobs"]}
            (run.dir / "mended").touch()
            self._glassq("kick", "--yes", *(self._put[sort, "kicked"].id for sort in SORTS))
            wait_for(lambda: self._count("done") == 2 * len(SORTS), f"what was kicked to be done\n{run.log()}")
            return [self._cell(sort, way, before[sort], reasons) for sort in SORTS for way in WAYS]

    def _work(self, cells: list[tuple[str, str]]) -> None:
        """Puts these, and waits until none of them is left to do."""
        for sort, way in cells:
            delivery = envelope.new("orders", way.encode(), {"sort": sort, "way": way})
            self._put[sort, way] = delivery
            self._look.put(envelope.encode(delivery))
        ended = len(self._put)
        wait_for(lambda: self._count("done") + self._count("buried") == ended, f"{cells} to be over\n{self._run.log()}")

    def _count(self, state: str) -> int:
        """The deliveries that the ledger has in this state."""
        return int((json.loads(self._glassq("status", "--json"))["ledger"]["states"] or {}).get(state, 0))

    def _cell(self, sort: str, way: str, before: str, reasons: dict[str, str]) -> Cell:
        shown = self._show(sort, way)
        states, results = (re.findall(rf"^{key} +(.*?) *$", shown, re.MULTILINE) for key in ("state", "result"))
        # the last one is the ledger's
        state = states[-1].partition(" ")[0]
        reason = reasons.get(self._put[sort, way].id, "")
        return Cell(sort, way, state, reason, "".join(results), before if way == "kicked" else shown, shown)

    def _show(self, sort: str, way: str) -> str:
        return self._glassq("show", self._put[sort, way].id)

    def _glassq(self, *arguments: str) -> str:
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as error:
            code = main_of_glassq(["--config", str(self._run.config), *arguments])
        assert code == 0, (arguments, error.getvalue())
        return out.getvalue()


def markdown(cells: list[Cell]) -> str:
    """The table, and under it what `glassq show` prints of each cell; what was kicked is there twice."""
    text = {(cell.sort, cell.way): cell.text.replace("|", r"\|") for cell in cells}
    lines = [f"| | {' | '.join(SORTS)} |", "|---" * (1 + len(SORTS)) + "|"]
    lines += [f"| {way} | {' | '.join(text[sort, way] for sort in SORTS)} |" for way in WAYS]
    for cell in sorted(cells, key=lambda cell: (SORTS.index(cell.sort), WAYS.index(cell.way))):
        shown = [cell.before, cell.shown] if cell.way == "kicked" else [cell.shown]
        lines += ["", f"## {cell.sort}, {cell.way}", *(f"\n```\n{each.strip()}\n```" for each in shown)]
    return "\n".join([*lines, ""])


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="glassq-handlers-") as directory:
        server = Beanstalkd(Path(directory))
        look = server.queue()
        try:
            cells = Table(Path(directory), server, look).cells()
        finally:
            look.close()
            server.stop()
    text = markdown(cells)
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(text, "utf-8")
    print(text.partition("\n\n")[0] if sys.argv[1:] else text)
    problems = [cell.problem for cell in cells if cell.problem]
    print("\n".join(problems) or f"all {len(cells)} are as they have to be", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
