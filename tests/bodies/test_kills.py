"""SIGKILL between each two steps of a large body and its job: no job without its body, no acknowledged ping lost.

Whatever is left over is swept, and who was killed does the rest when it is asked again.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from glassq import delivery as envelope
from glassq import settings
from glassq.bodies import check
from glassq.bodies.sweep import GRACE, Sweeper, journaled_jobs, named_in
from glassq.delivery import decode
from glassq.intake.metrics import IntakeCounters, shared_counters
from glassq.intake.process import IntakeProcess
from glassq.intake.source_counters import SharedSourceCounters
from glassq.ledger import Entry, open_ledger
from glassq.lifecycle import after_bury
from glassq.operations import Operations, archive, archive_file, delete, forget, journal, kick, move, replay, restore
from glassq.operations.filters import Selection
from glassq.operations.move import Move
from glassq.operations.progress import Silent
from glassq.operations.replay_plan import ReplayFilter
from glassq.queues.base import ALL_STATES
from tests.bodies.test_directory import put as store_body
from tests.bodies.test_directory import states
from tests.cli.conftest import put
from tests.intake.apps import ScriptedSource
from tests.kills import killed_before
from tests.syncers import queue_section
from tests.thorough import steps
from tests.worker.conftest import Bench, nobody_reports_deaths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from glassq.delivery import Delivery
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

__all__ = ["nobody_reports_deaths"]

SIZE = 100_000
# More than any act here has.
MAX_STEPS = 60
ALL = Selection(everything=True)


@dataclasses.dataclass
class Scene:
    """A queue, a store, a journal, a ledger and an archive's directory."""

    directory: Path
    server: Beanstalkd
    look: Queue
    away: bool = False

    @property
    def operations(self) -> Operations:
        return Operations(self.settings, actor="ada")

    @property
    def settings(self) -> settings.Settings:
        """With `away` the queue cannot be reached."""
        url = f"beanstalk://{self.directory}/nobody" if self.away else self.server.url
        text = (
            f'{queue_section(url)}[ledger]\nurl = "sqlite:///{self.directory}/ledger.db"\n'
            f'[bodies]\nurl = "file://{self.directory}/bodies"\n[intake]\njournal = "{self.directory}/journal"\n'
        )
        return settings.parse(text, str(self.directory / "glassq.toml"))

    # -- what is there ------------------------------------------------------------------------------------------------

    def stored(self, do: str = "done") -> Delivery:
        """A delivery whose body is in the store."""
        store = self.operations.bodies
        store.prepare()
        key, about = store_body(store, json.dumps({"do": do, "much": "x" * SIZE}).encode())
        return envelope.new("mirror", b"", {"person": "ann"}, tube=self.look.tube, stored=about, key=key)

    def ready(self, do: str) -> Delivery:
        delivery = self.stored(do)
        put(self.look, delivery)
        return delivery

    def buried(self) -> Delivery:
        delivery = after_bury(self.stored(), "no disk")
        put(self.look, delivery, "buried")
        return delivery

    def done(self) -> None:
        delivery = self.stored()
        self.operations.bodies.retire(delivery.id)
        ledger = open_ledger(self.settings.ledger)
        kept: dict[str, Any] = {"stored": delivery.stored}
        entry = Entry(delivery.id, "mirror", delivery.received, "done", 1, datetime.now(UTC), 0.5, kept=kept)
        ledger.record(replace(entry, body=b"", labels=delivery.labels))
        ledger.close()

    def buried_with_orphans(self) -> Delivery:
        for _ in range(3):
            self.stored()
        return self.buried()

    def acknowledged(self) -> set[str]:
        try:
            return set((self.directory / "acknowledged").read_text().split())
        except FileNotFoundError:
            return set()

    def jobs(self) -> list[Delivery]:
        """All in queue, journal and archives: with a body in the store, or within the archive."""
        with self.operations.queue() as queue:
            tubes = [counts.name for counts in queue.counts()]
            jobs = [job.body for job in queue.find(ALL_STATES, tubes)]
        return [decode(job) for job in [*jobs, *journaled_jobs(self.settings)]]

    def archived(self) -> set[str]:
        found = set()
        for file in (self.directory / "archives").glob("*.jsonl"):
            mistakes: list[str] = []
            found |= {decode(item.data).id for item in archive_file.read(file, mistakes)}
            assert not mistakes
        return found

    def prepared(self) -> None:
        self.operations.bodies.prepare()

    def journaled(self) -> None:
        self.prepared()
        self.intake_without_queue()

    def put_aside(self) -> None:
        self.buried()
        self.archive()

    # -- what somebody does -------------------------------------------------------------------------------------------

    def intake(self) -> None:
        """Takes a large ping, and acknowledges it."""
        source: Any = ScriptedSource()
        counters = IntakeCounters(shared_counters().row(1))
        process = IntakeProcess(self.settings, counters, SharedSourceCounters([source], 2).row(1))
        body = process.bodies.begin(SIZE)
        for _ in range(2):
            body.write(bytes(SIZE // 2))
        key, stored = process.bodies.store(body.data, {"glassq.body": body})
        delivery = envelope.new("test", b"", {}, tube=self.look.tube, stored=stored, key=key)
        process.keeper.take(delivery, {})
        with (self.directory / "acknowledged").open("a") as file:
            file.write(f"{key}\n")
        body.close()
        process.close()

    def intake_without_queue(self) -> None:
        """The same while the queue is away: into the journal."""
        dataclasses.replace(self, away=True).intake()

    def pool(self) -> None:
        """Works what is ready."""
        with closing(self.server.queue()) as queue:
            bench = Bench(queue, bodies=self.operations.bodies)
            while bench.consumer.work_one(0):
                pass

    def move_on(self) -> None:
        journal.move_on(self.operations, Silent())

    def sweep(self) -> None:
        with self.operations.queue() as queue:
            sweeper = Sweeper.of(self.settings)
            sweeper.sweep(
                lambda wanted: named_in(wanted, list(journaled_jobs(self.settings)), queue),
                now=time.time() + GRACE + 1,
                safe_age=0.0,
            )

    def archive(self) -> None:
        (self.directory / "archives").mkdir(exist_ok=True)
        operations = self.operations
        with operations.queue() as queue:
            plan = archive.plan(operations, queue, ALL, Silent())
            archive.carry_out(operations, queue, plan, Silent(), self.directory / "archives")

    def restore(self) -> None:
        operations, files = self.operations, sorted((self.directory / "archives").glob("*.jsonl"))
        with operations.queue() as queue:
            restore.carry_out(operations, queue, restore.plan(operations, queue, files, Silent()), Silent())

    def replay(self) -> None:
        operations, asked = self.operations, ReplayFilter(selection=Selection(), state="done")
        with operations.queue() as queue:
            replay.carry_out(operations, queue, replay.plan(operations, queue, asked, Silent()), Silent())

    def move(self) -> None:
        operations, asked = self.operations, Move(selection=ALL, target=f"{self.look.tube}.elsewhere")
        with operations.queue() as queue:
            plan = move.plan(operations, queue, asked, Silent())
            move.carry_out(operations, queue, plan, Silent(), asked.target)

    def kick(self) -> None:
        operations = self.operations
        with operations.queue() as queue:
            kick.carry_out(operations, queue, kick.plan(operations, queue, ALL, Silent()), Silent())

    def delete(self) -> None:
        operations = self.operations
        with operations.queue() as queue:
            delete.carry_out(operations, queue, delete.plan(operations, queue, ALL, Silent()), Silent())

    def forget(self) -> None:
        operations = self.operations
        with operations.queue() as queue:
            plan = forget.plan(operations, queue, forget.wanted(["label.person=ann"], None), Silent())
            forget.carry_out(operations, queue, plan, Silent())


@pytest.fixture
def scene(tmp_path: Path, beanstalkd: Beanstalkd, queue: Queue, nobody_reports_deaths: None) -> Scene:
    return Scene(tmp_path, beanstalkd, queue)


# What is there before, who is killed, and where the delivery is then, in the end: "job", "archive" or "gone".
ACTS: list[tuple[str, Callable[[Scene], Delivery | None], Callable[[Scene], None], str]] = [
    ("intake", Scene.prepared, Scene.intake, "job"),
    ("intake without queue", Scene.prepared, Scene.intake_without_queue, "job"),
    ("move on", Scene.journaled, Scene.move_on, "job"),
    ("done", lambda scene: scene.ready("done"), Scene.pool, "gone"),
    ("drop", lambda scene: scene.ready("drop"), Scene.pool, "gone"),
    ("retry", lambda scene: scene.ready("retry"), Scene.pool, "job"),
    ("bury", lambda scene: scene.ready("bury"), Scene.pool, "job"),
    ("archive", Scene.buried, Scene.archive, "archive"),
    ("restore", Scene.put_aside, Scene.restore, "job archive"),
    ("kick", Scene.buried, Scene.kick, "job"),
    ("move", Scene.buried, Scene.move, "job"),
    ("delete", Scene.buried, Scene.delete, "gone"),
    ("forget", Scene.buried, Scene.forget, "gone"),
    ("replay", Scene.done, Scene.replay, "job"),
    ("sweep", Scene.buried_with_orphans, Scene.sweep, "job"),
]


@pytest.mark.parametrize(("before", "act", "end"), [act[1:] for act in ACTS], ids=[act[0] for act in ACTS])
def test_killed_anywhere_it_leaves_no_job_without_its_body(
    scene: Scene, before: Callable[[Scene], Delivery | None], act: Callable[[Scene], None], end: str
) -> None:
    for step in steps(0, MAX_STEPS):
        given = before(scene)
        more = killed_before(step, lambda: act(scene))
        places = look_at(scene)
        assert end == "gone" or given is None or places, f"lost before step {step}"
        # once more, to its end; in a process of its own, as it closes nothing
        assert not killed_before(sys.maxsize, lambda: act(scene))
        assert look_at(scene) == set(end.split()) - {"gone"}, f"after step {step}"
        clean(scene)
        if not more:
            return
    pytest.fail("it has no end")


def look_at(scene: Scene) -> set[str]:
    """In which places deliveries are. Each that is in a job has its body, and each acknowledged one is there."""
    jobs, archived = scene.jobs(), scene.archived()
    for job in jobs:
        assert job.stored is not None
        check(scene.operations.bodies, job.id, job.stored)
    assert scene.acknowledged() <= {job.id for job in jobs}
    return {place for place, found in (("job", jobs), ("archive", archived)) if found}


def clean(scene: Scene) -> None:
    """A sweep leaves what jobs name, and what is done; then all of it goes."""
    store = scene.operations.bodies
    scene.move_on()
    scene.sweep()
    named = {job.id for job in scene.jobs()}
    assert {key for key, state in states(store).items() if state != "done"} == named
    with scene.operations.queue() as queue:
        tubes = [counts.name for counts in queue.counts()]
        queue.delete_all(list(queue.find(ALL_STATES, tubes)))
    for key in states(store):
        store.delete(key)
    for file in [*scene.directory.glob("archives/*"), scene.directory / "acknowledged", scene.directory / "ledger.db"]:
        file.unlink(missing_ok=True)
