"""The queue's tables are upgraded while pools of both versions work, and nothing is lost.

Programs of another version are today's, which know other steps: the first ones only, or one more.
"""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.bodies.table import SCHEMA as BODIES
from glassq.bodies.table import TableBodies
from glassq.database import schema_parts, shares
from glassq.database.postgres import PostgresSession
from glassq.errors import WrongTables
from glassq.glass.record_table import SCHEMA as CREDENTIALS
from glassq.glass.record_table import RecordTable
from glassq.queues import open_inspector, open_producer
from glassq.queues.base import NewJob
from glassq.queues.durable import put_durably
from glassq.queues.postgres import schema
from glassq.settings import load
from glassq.values import QueueUrl
from tests.bodies.test_directory import put as put_body
from tests.bodies.test_directory import read as read_body
from tests.conftest import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.database.schema_parts import SchemaPart
    from tests.postgres import PostgresServer

Steps = tuple[tuple[str, ...], ...]

NOW = schema.SCHEMA.steps
# What a next version may do: what programs of this one neither know nor miss.
NEXT = (
    *NOW,
    (
        "ALTER TABLE glassq_jobs ADD COLUMN note text NOT NULL DEFAULT ''",
        "CREATE INDEX glassq_jobs_note ON glassq_jobs (note) WHERE note <> ''",
    ),
)
# What the first release with these tables had.
FIRST = NOW[:1]

PROGRAM = """
import sys
from dataclasses import replace
from glassq.queues.postgres import schema
schema.SCHEMA = replace(schema.SCHEMA, steps={steps!r})
from glassq.{module} import main
sys.exit(main())
"""
HANDLER = """
import os
from pathlib import Path

def handle(delivery):
    with Path(__file__).with_name(f"done-{os.environ['POOL']}").open("a") as done:
        done.write(f"{delivery.id}\\n")
"""
SETTINGS = """
[queue]
url = "{url}"
[worker]
processes = 2
[[routes]]
source = "mirror"
handler = "handlers:handle"
[bodies]
url = "file://{home}/bodies"
[ledger]
url = "sqlite:///{home}/ledger.db"
"""


@dataclass
class Site:
    """A database, and programs that know some steps of its tables; `sent` are the deliveries that were taken."""

    home: Path
    url: str
    sent: list[str] = field(default_factory=list)
    running: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.home / "handlers.py").write_text(HANDLER)
        self.config.write_text(SETTINGS.format(url=self.url, home=self.home))

    @property
    def config(self) -> Path:
        return self.home / "glassq.toml"

    def start(self, steps: Steps, module: str, *arguments: str, pool: str = "") -> Process:
        code = PROGRAM.format(steps=steps, module=module)
        file = self.home / f"{len(self.running)}.log"
        made = Process([code, "--config", str(self.config), *arguments], file, {"POOL": pool}, self.home, forks="-c")
        self.running.append(made)
        return made

    def pool(self, name: str, steps: Steps) -> Process:
        return self.start(steps, "programs.worker", pool=name)

    def glassq(self, steps: Steps, *arguments: str) -> tuple[int, str]:
        """The exit code, and what is said."""
        process = self.start(steps, "cli.main", *arguments)
        return process.wait(), process.output()

    def put_until(self, over: threading.Event) -> None:
        """Puts one delivery after the other."""
        with closing(open_producer(load(str(self.config), {}))) as producer:
            while not over.wait(0.02):
                delivery = envelope.new("mirror", b"{}", {})
                job = NewJob(delivery.id, envelope.encode(delivery), "glassq")
                put_durably(producer, job, within=30, proof_within=30)
                self.sent.append(delivery.id)

    def done(self, *pools: str) -> list[str]:
        """The deliveries that these pools have worked; all pools where none is named."""
        files = [self.home / f"done-{name}" for name in pools] or sorted(self.home.glob("done-*"))
        return [line for file in files if file.exists() for line in file.read_text().split()]

    def said(self) -> str:
        return "\n".join(process.output() for process in self.running)


@pytest.fixture
def site(tmp_path: Path, postgres: PostgresServer) -> Iterator[Site]:
    made = Site(tmp_path, postgres.url(postgres.database()).whole)
    yield made
    for process in made.running:
        process.end(signal.SIGKILL)


def test_pools_of_both_versions_work_while_the_queues_tables_are_upgraded(site: Site) -> None:
    assert site.glassq(FIRST, "queue", "init")[0] == 0
    old = site.pool("old", FIRST)
    over = threading.Event()
    sender = threading.Thread(target=site.put_until, args=[over])
    sender.start()
    try:
        wait_for(lambda: len(site.done("old")) > 10, f"the old pool to work\n{site.said()}")
        code, said = site.glassq(NOW, "queue", "upgrade")
        were = f"were of version {len(FIRST)}, and are of version {len(NOW)} now"
        assert (code, were in said) == (0, True), said
        seen = len(site.done("old"))
        wait_for(lambda: len(site.done("old")) > seen + 10, "the old pool to go on")
        new = site.pool("new", NOW)
        wait_for(lambda: len(site.done("new")) > 10, f"the new pool to work\n{site.said()}")
        assert old.end() == 0
    finally:
        over.set()
        sender.join()
    wait_for(lambda: len(site.done()) >= len(site.sent), "all to be worked")
    assert sorted(site.done()) == sorted(site.sent), "each once"
    assert new.end() == 0
    with closing(open_inspector(load(str(site.config), {}))) as inspector:
        assert sum(tube.jobs for tube in inspector.counts()) == 0
    assert not any(words in site.said() for words in ("Traceback", "ERROR"))


def test_a_pool_whose_version_the_tables_have_left_behind_does_not_start(site: Site, postgres: PostgresServer) -> None:
    assert site.glassq(NEXT, "queue", "init")[0] == 0
    name = site.url.rpartition("/")[2]
    postgres.execute(f"UPDATE glassq_schema SET oldest = {len(NEXT)} WHERE part = 'queue'", name)
    refused = site.pool("old", NOW)
    assert refused.wait() == 78
    assert "install the newer glassq" in refused.output()


def newer(part: SchemaPart, *, oldest: int = 1) -> SchemaPart:
    """The part as the next version has it."""
    table = part.tables[0]
    return replace(part, steps=(*part.steps, (f"ALTER TABLE {table} ADD COLUMN note text",)), oldest=oldest)


def use_bodies(url: str) -> None:
    store = TableBodies(url)
    key, _ = put_body(store, b"x" * 300_000)  # type: ignore[arg-type]
    assert len(read_body(store, key)) == 300_000  # type: ignore[arg-type]


def use_credentials(url: str) -> None:
    table = RecordTable(url)
    table.prepare()
    with table.held("ada") as held:
        held.write("ada", b"token")
    assert table.read("ada") == b"token"


def use_limits(url: str) -> None:
    with closing(session_of(url)) as session:
        shares.ShareTable(session, "a").exchange(["t"], lambda found: {"t": ("a", 1.0, 1, 0.0, 0, False)})


def session_of(url: str) -> PostgresSession:
    return PostgresSession(QueueUrl(url), name="tests", connect_timeout=10, timeout=10)


@pytest.mark.parametrize(
    ("part", "use"),
    [(BODIES, use_bodies), (CREDENTIALS, use_credentials), (shares.SCHEMA, use_limits)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_programs_of_this_version_work_on_with_the_next_ones_tables_of_each_part(
    postgres: PostgresServer, part: SchemaPart, use: object
) -> None:
    url = postgres.url(postgres.database()).whole
    assert callable(use)
    use(url)
    with closing(session_of(url)) as session:
        assert schema_parts.upgrade(session, newer(part)) == part.version
        use(url)
        schema_parts.prepare(session, part)
        # the version stays the newer one
        assert schema_parts.version(session, part) == part.version + 1
        # a further one that this code must not use
        further = newer(newer(part), oldest=part.version + 2)
        session.rows(f"ALTER TABLE {part.tables[0]} DROP COLUMN note")
        schema_parts.upgrade(session, further)
        with pytest.raises(WrongTables, match="install the newer glassq"):
            schema_parts.prepare(session, part)
