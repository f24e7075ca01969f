"""Children that are forked from a template share its memory, are children of the pool, and go on without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq.worker import templates
from glassq.worker.health import SILENT
from glassq.worker.scoreboard import Scoreboard
from glassq.worker.template import Born, Loaded
from glassq.worker.templates import Template, Templates, _Generation
from glassq.worker.throttle import Throttle
from tests.cli.conftest import Cli
from tests.conftest import wait_for
from tests.worker.conftest import jobs
from tests.worker.pools import HANDLERS, PoolRun, processes, title

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a template needs /proc, and orphans that are adopted")

Make = "Callable[..., PoolRun]"

# A module of 60 MiB.
LARGE = "import os\nBALLAST = os.urandom(60 << 20)\n" + HANDLERS
# What a module does at its import, and how it is told.
UNSHAREABLE = {
    "thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()\n",
        "handlers:handle starts or opens the thread poller",
    ),
    "native thread": (
        """
import ctypes
libc, thread = ctypes.CDLL(None), ctypes.c_ulong()
assert libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.pause, ctypes.c_void_p), None) == 0
""",
        "handlers:handle starts or opens the thread ",
    ),
    "socket": (
        "import socket\nSOCKET = socket.create_connection(('127.0.0.1', {port}))\n",
        "handlers:handle starts or opens a socket to 127.0.0.1:{port}",
    ),
    "epoll": ("import select\nEPOLL = select.epoll()\n", "handlers:handle starts or opens an eventpoll descriptor"),
    "database": (
        "import sqlite3\nDB = sqlite3.connect('{dir}/mine.db')\nDB.execute('create table if not exists t (a)')\n",
        "handlers:handle starts or opens the open file {dir}/mine.db",
    ),
    "process": (
        # it ends with whoever has loaded this
        "import subprocess\nHELPER = subprocess.Popen(['setpriv', '--pdeathsig', 'KILL', 'sleep', '1000'])\n",
        # not its name: it may not have begun to be a sleep
        "handlers:handle starts or opens the process ",
    ),
}


@pytest.fixture
def make(tmp_path: Path, beanstalkd: Beanstalkd, look: Queue) -> Iterator[Make]:
    made: list[PoolRun] = []

    def make(handlers: str = HANDLERS, **worker: object) -> PoolRun:
        made.append(PoolRun(tmp_path, beanstalkd, look, **worker))
        made[-1].write_handlers(handlers)
        return made[-1]

    yield make
    for run in made:
        run.__exit__()


def private_memory(pid: int) -> int:
    """The memory that only this process has (USS), in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def lives(pid: int) -> bool:
    return processes().get(pid, (0, "Z"))[1] != "Z"


def nothing_left(run: PoolRun, pids: set[int]) -> None:
    wait_for(lambda: not any(map(lives, pids)), f"{pids} to end\n{run.log()}")


# -- what is shared, and what is not --------------------------------------------------------------------------------


def test_children_share_what_their_handlers_have_loaded(make: Make, look: Queue) -> None:
    run = make(LARGE, processes=3).start().ready()
    template = run.template()
    children = run.children()
    assert len(children) == 3
    assert template not in children
    for number in range(9):
        run.put(f"ping-{number}")
    wait_for(lambda: len(run.story("end")) == 9 and not jobs(look), "all to be worked")
    assert all(private_memory(child) < 40 << 20 for child in children), [*map(private_memory, children)]
    # a child that takes the place of another one as well
    os.kill(children[0], signal.SIGKILL)
    wait_for(lambda: len(run.children()) == 3 and children[0] not in run.children(), "it to be replaced")
    assert run.template() == template
    assert all(private_memory(child) < 40 << 20 for child in run.children())


def test_preload_can_be_switched_off(make: Make) -> None:
    run = make(LARGE, preload=False).start().ready()
    (child,) = run.children()
    assert private_memory(child) > 60 << 20
    assert run.templates() == []


@pytest.mark.parametrize("kind", UNSHAREABLE)
def test_what_cannot_be_shared_is_found_and_each_child_loads_for_itself(
    make: Make, beanstalkd: Beanstalkd, look: Queue, kind: str
) -> None:
    code, says = UNSHAREABLE[kind]
    run = make(processes=2)
    known = {"port": beanstalkd.url.rpartition(":")[2], "dir": run.dir}
    run.write_handlers(HANDLERS + code.format(**known))
    runtime = run.dir / "run" / "glassq-worker"
    runtime.mkdir(parents=True)
    run.start(RUNTIME_DIRECTORY=str(runtime)).ready()
    wait_for(lambda: not run.templates(), "the template to end")
    (line,) = [line for line in run.log().splitlines() if "children share no memory" in line]
    assert says.format(**known) in line
    said = Cli(run.dir, beanstalkd.url)("doctor")
    assert says.format(**known) in said.out + said.err
    assert "preload = false" in said.out + said.err
    run.put("one")
    wait_for(lambda: run.story("end") and not jobs(look), "it to be worked")
    assert "died" not in run.log()

    # without it, the next generation shares
    run.write_handlers(HANDLERS)
    run.send(signal.SIGHUP)
    run.template()
    wait_for(lambda: "share no memory" not in Cli(run.dir, beanstalkd.url)("doctor").out, "doctor to know")


RANDOM = """
import hashlib, random, ssl, uuid, secrets
OWN, CHOSEN = random.Random(), random.Random(42)
CONTEXT = ssl.create_default_context()

def draw(name):
    drawn = {
        "own": OWN.getrandbits(64), "module": random.getrandbits(64), "uuid": uuid.uuid4().hex,
        "ssl": ssl.RAND_bytes(8).hex(), "secrets": secrets.token_hex(8),
    }
    for kind, value in {**drawn, "chosen": CHOSEN.getrandbits(64)}.items():
        tell(f"drew-{kind}", str(value))
    hold(name)
"""


def test_children_draw_different_random_numbers(make: Make, look: Queue) -> None:
    run = make(HANDLERS + RANDOM, processes=3).start().ready()
    run.template()
    for number in range(3):
        run.put(f"ping-{number}", "draw")
    wait_for(lambda: len(run.story("drew-chosen")) == 3, f"all to draw\n{run.log()}")
    run.let_go()
    for kind in ("own", "module", "uuid", "ssl", "secrets"):
        assert len({value for value, _, _ in run.story(f"drew-{kind}")}) == 3, kind
    # its author has chosen the seed
    assert len({value for value, _, _ in run.story("drew-chosen")}) == 1
    wait_for(lambda: not jobs(look), "all to be worked")


# -- a template that fails ------------------------------------------------------------------------------------------


def test_a_template_that_is_killed_under_load_is_replaced_and_its_children_go_on(make: Make, look: Queue) -> None:
    run = make(processes=2, max_jobs=3).start().ready()
    held = run.holding()
    names: list[str] = []
    for _ in range(5):
        template = run.template()
        names += [f"ping-{len(names) + number}" for number in range(6)]
        for name in names[-6:]:
            run.put(name)
        os.kill(template, signal.SIGKILL)
        wait_for(lambda: run.template() != template, "another template")  # noqa: B023
    run.let_go()
    wait_for(lambda: not jobs(look), f"everything to be worked\n{run.log()}")
    assert sorted(name for name, _, _ in run.story("end")) == sorted(["held", *names])
    assert ("held", held, "one") in run.story("end")
    assert run.log().count("template died") == 5
    assert "child died" not in run.log()
    wait_for(lambda: len(run.children()) == 2, "as many as there shall be")
    assert run.zombies() == []


def test_a_template_that_dies_while_it_loads_is_tried_again_and_the_old_children_stay(make: Make) -> None:
    run = make().start().ready()
    before = run.children()
    run.write_handlers("import os; os._exit(9)\n")
    run.send(signal.SIGHUP)
    wait_for(lambda: run.log().count("template died") >= 3, f"several tries\n{run.log()}")
    assert 'how="exit 9"' in run.log()
    run.put("meanwhile")
    wait_for(lambda: run.story("end"), "the old child to work")
    assert run.children() == before
    run.write_handlers(HANDLERS.replace('"one"', '"two"'))
    wait_for(lambda: not set(before) & set(run.children()) and run.children(), "the old child to be replaced")
    run.put("after")
    wait_for(lambda: len(run.story("end")) == 2, "the new one to work")
    assert run.story("end")[1][2] == "two"


def test_a_template_that_hangs_while_it_loads_is_killed_and_a_reload_makes_another(make: Make) -> None:
    run = make().start().ready()
    before = run.children()
    run.write_handlers("import time\nwhile True: time.sleep(1)\n")
    run.send(signal.SIGHUP)
    wait_for(lambda: len(run.templates()) == 2, "the new template beside the old one")
    old, hanging = run.templates()
    run.put("meanwhile")
    wait_for(lambda: run.story("end"), "the old child to work")
    assert run.children() == before
    run.write_handlers(HANDLERS.replace('"one"', '"two"'))
    run.send(signal.SIGHUP)
    wait_for(lambda: not lives(hanging), f"it to be killed\n{run.log()}")
    wait_for(lambda: not lives(old) and not lives(before[0]), "the first ones to end")
    run.put("after")
    wait_for(lambda: ("after", "two") in ended(run), f"the new code to run\n{run.log()}")
    assert "died" not in run.log()


def test_a_template_that_is_stopped_by_a_signal_is_killed_with_what_it_was_to_fork(make: Make) -> None:
    run = make(processes=2).start_impatient().ready()
    template, (first, second) = run.template(), run.children()
    os.kill(template, signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: "template killed: it is silent" in run.log(), f"it to be found\n{run.log()}", 90)
    wait_for(lambda: len(run.children()) == 2, f"the child to be replaced\n{run.log()}")
    assert second in run.children()
    assert run.template() != template


def test_a_template_that_hangs_while_it_loads_is_found_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    # it has begun no birth
    monkeypatch.setattr(templates, "BIRTH_TIMEOUT", 0.1)
    template = Template()
    now = time.monotonic()
    template.start(lambda loaded: time.sleep(1000), Scoreboard(1).slots, Throttle(1), now)  # type: ignore[func-returns-value]
    try:
        assert template.verdict(now, silence=20, max_silence=600) == ""
        assert template.verdict(now + 30, silence=20, max_silence=600) == ""
        assert template.verdict(now + 59, silence=20, max_silence=600) == ""
        assert template.verdict(now + 62, silence=20, max_silence=600) == SILENT
    finally:
        template.kill()
        wait_for(lambda: template.reap(time.monotonic()) is not None, "it to end")
        template.close()


def test_a_newborn_that_was_given_up_and_has_ended_by_itself_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    template, slots = Template(), Scoreboard(1).slots
    monkeypatch.setattr(template, "read", lambda: iter([Born(1, gone.pid), Loaded()]))
    assert list(Templates(slots, Throttle(1))._hear(0, _Generation(), template, time.monotonic())) == []
    assert template.loaded, "what was said after it is heard"


def test_a_reload_reads_code_afresh_and_ends_the_old_template(make: Make) -> None:
    run = make(processes=2).start().ready()
    for version in ("two", "three"):
        old, before = run.template(), run.children()
        run.write_handlers(HANDLERS.replace('"one"', f'"{version}"'))
        run.send(signal.SIGHUP)
        wait_for(lambda: not lives(old), f"the old template to end\n{run.log()}")  # noqa: B023
        wait_for(lambda: not set(before) & set(run.children()), "all children to be replaced")  # noqa: B023
        run.put(f"ping-{version}")
        wait_for(lambda: (f"ping-{version}", version) in ended(run), "the new code to run")  # noqa: B023
    assert "died" not in run.log()


def ended(run: PoolRun) -> set[tuple[str, str]]:
    return {(name, version) for name, _, version in run.story("end")}


# -- stop -----------------------------------------------------------------------------------------------------------

SLOW = "import time\nfrom pathlib import Path\n(Path(__file__).parent / 'loads').touch()\ntime.sleep(1)\n" + HANDLERS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL], ids=["TERM", "QUIT", "KILL"])
@pytest.mark.parametrize("stage", ["template loads", "children start", "children work", "reload loads"])
def test_a_stop_at_any_stage_leaves_no_process(make: Make, stage: str, number: signal.Signals) -> None:
    run = make(SLOW if stage == "template loads" else HANDLERS, processes=4)
    run.start()
    if stage == "template loads":
        wait_for((run.dir / "loads").exists, "the template to load")
    elif stage == "children start":
        wait_for(run.children, "a child")
    else:
        run.ready()
        run.holding()
    if stage == "reload loads":
        run.write_handlers(SLOW)
        run.send(signal.SIGHUP)
        wait_for((run.dir / "loads").exists, "the new template to load")
    left = set(run.forked())
    run.send(number)
    run.let_go()
    code = run.ended()
    assert code == (-number if number == signal.SIGKILL else 0), run.log()
    nothing_left(run, left)
    wait_for(lambda: not of_this_pool(run), "nothing to be left")
    assert "died" not in run.log()


def of_this_pool(run: PoolRun) -> list[int]:
    """The processes that write to the pool's log."""
    found = []
    for pid in processes():
        try:
            if os.path.samefile(f"/proc/{pid}/fd/2", run.dir / "log"):  # noqa: PTH121 - a link that leads nowhere else
                found.append(pid)
        except OSError:
            continue
    return found


def test_many_children_are_forked_at_once_and_none_is_lost(make: Make) -> None:
    run = make(processes=24).start().ready()
    assert len(run.children()) == 24
    assert len({title(pid) for pid in run.children()}) == 24
    for child in run.children()[:12]:
        os.kill(child, signal.SIGKILL)
    wait_for(lambda: len(run.children()) == 24 and not run.zombies(), f"all to be replaced\n{run.log()}")
    run.send(signal.SIGTERM)
    assert run.ended() == 0
