"""What several keys must keep together, and what their types cannot say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from glassq import mistakes
from glassq.mask import MASK
from glassq.mistakes import place
from glassq.settings.options import unknown_handlers
from glassq.settings.route_rules import MAX_TUBE, SOURCE_NAME, Rule, route_rules, without_handler
from glassq.settings.schedule_rules import schedule_rules
from glassq.settings.sections import MAX_BODY, SCHEDULE_SOURCE, TASK_SOURCE
from glassq.settings.tubes import MAIN_QUEUE, queue_tube
from glassq.values import SecretFile, without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings.sections import SourceSettings
    from glassq.settings.settings import Settings

# The tube of a push queue is [queue] tube, ".push." and the queue's name (up to 100 characters): at most 200 in all.
MAX_BASE = 94
MAX_WEIGHT = 1_000
# Where the console may listen on TCP: whoever else reaches it comes by a tunnel or a proxy.
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# What SQLAlchemy knows by itself, and libpq's word for PostgreSQL.
DATABASES = ("sqlite", "postgres", "postgresql", "mysql", "mariadb", "oracle", "mssql")
_DATABASE = re.compile(r"(\w+)(?:\+\w+)?://")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]*")


def check_together(settings: Settings, text: str) -> Iterator[tuple[str, str]]:
    """Checks rules about several keys. Yields the key of each mistake, and the message."""
    rules = [*_worker_rules(settings), *_queue_rules(settings), *_intake_rules(settings), *_metrics_rules(settings)]
    rules += [*_tasks_rules(settings), *_console_rules(settings), *_database_rules(settings)]
    for name, source in settings.sources.items():
        rules += _source_rules(name, source)
    rules += [*route_rules(settings), *schedule_rules(settings)]
    rules += _worker_queue_rules(settings)
    for fits, key, value, expected in rules:
        if not fits:
            names = key.split(".")
            where = mistakes.located(text, names)
            # a wrong path of a secret file is mostly the secret itself
            shown = MASK if isinstance(value, SecretFile) else value
            yield key, f'{settings.file}: {place(names)} = "{shown}": expected {expected}{where}'
    for key in without_handler(settings):
        names = key.split(".")
        missing = f"missing key {place([*names, 'handler'])}, or steps = [...] in its place"
        yield key, f"{settings.file}: {missing}{mistakes.located(text, names)}"
    for mistake in unknown_handlers(settings, text):
        yield "handlers", mistake
    for mistake in _unknown_queues(settings, text):
        yield "worker.queues", mistake


def _worker_rules(settings: Settings) -> list[Rule]:
    worker = settings.worker
    return [
        (worker.grace < worker.deadline, "worker.grace", worker.grace, "shorter than deadline"),
        (worker.backoff >= 1, "worker.backoff", worker.backoff, "at least 1s"),
        (worker.backoff_cap >= worker.backoff, "worker.backoff_cap", worker.backoff_cap, "at least backoff"),
    ]


def _queue_rules(settings: Settings) -> list[Rule]:
    queue = settings.queue
    fits = settings.push is None or len(queue.tube) <= MAX_BASE
    expected = f"at most {MAX_BASE} characters: with [push] the names of queues are appended"
    return [
        (fits, "queue.tube", queue.tube, expected),
        (queue.ttr >= 5 and queue.ttr % 1 == 0, "queue.ttr", queue.ttr, "whole seconds, at least 5s"),
        (0 < queue.connect_timeout <= 60, "queue.connect_timeout", queue.connect_timeout, "up to 1m, not 0"),
        (0 < queue.timeout <= 60, "queue.timeout", queue.timeout, "up to 1m, not 0"),
    ]


def _intake_rules(settings: Settings) -> list[Rule]:
    intake = settings.intake
    largest = "at least 25MiB, the largest body"
    return [
        (0 < intake.max_body <= MAX_BODY, "intake.max_body", intake.max_body, "1B to 25MiB"),
        (intake.spill_max >= MAX_BODY, "intake.spill_max", intake.spill_max, largest),
        (intake.memory_max >= 1 << 20, "intake.memory_max", intake.memory_max, "at least 1MiB"),
        (intake.request_timeout >= 1, "intake.request_timeout", intake.request_timeout, "at least 1s"),
    ]


def _metrics_rules(settings: Settings) -> list[Rule]:
    metrics, bind = settings.metrics, settings.intake.bind
    apart = metrics.pool is None or metrics.pool not in (metrics.intake, bind)
    inside, outside = str(metrics.intake), str(bind)
    fits = metrics.intake is None or inside == outside or inside.rpartition(":")[2] != outside.rpartition(":")[2]
    return [
        (apart, "metrics.pool", metrics.pool, "another address than intake has"),
        (fits, "metrics.intake", metrics.intake, "the address of [intake] bind, or another port"),
    ]


def _tasks_rules(settings: Settings) -> list[Rule]:
    tasks, metrics = settings.tasks, settings.metrics
    open_to_all = isinstance(tasks.bind.place, tuple) and tasks.token_file is None
    others = {settings.intake.bind, metrics.intake, metrics.pool} - {None}
    alone = metrics.tasks is None or metrics.tasks not in {*others, tasks.bind}
    expected = "a unix socket; or token_file beside it, as whoever reaches a TCP address could add tasks"
    return [
        (not open_to_all, "tasks.bind", tasks.bind, expected),
        (tasks.bind not in others, "tasks.bind", tasks.bind, "another address than intake and metrics have"),
        (alone, "metrics.tasks", metrics.tasks, "another address than anything else has"),
    ]


def _console_rules(settings: Settings) -> list[Rule]:
    console = settings.console
    place = console.bind.place
    inside = not isinstance(place, tuple) or place[0] in LOOPBACK
    alone = console.bind not in {settings.intake.bind, settings.tasks.bind}
    tunnel = "ssh -L 8099:/run/glassq-console.sock HOST, and http://localhost:8099/, reach it from elsewhere"
    both = bool(console.proxy_user) == bool(console.proxy_header)
    header = not console.proxy_header or bool(_HEADER.fullmatch(console.proxy_header))
    return [
        (inside, "console.bind", console.bind, f"a unix socket, or 127.0.0.1 or [::1] with a port: {tunnel}"),
        (alone, "console.bind", console.bind, "another address than intake and tasks have"),
        (both, "console.proxy_user", console.proxy_user, "both proxy_user and proxy_header, or neither"),
        (header, "console.proxy_header", console.proxy_header, "the name of a header, such as X-Forwarded-User"),
    ]


def _database_rules(settings: Settings) -> Iterator[Rule]:
    names = settings.push.names if settings.push is not None else ""
    for key, url in {"ledger.url": settings.ledger.url, "push.names": names}.items():
        known = _DATABASE.match(url)
        # what is no URL may hold a password anywhere
        shown = without_password(url) if known or url.startswith("/") else MASK
        expected = 'a database URL such as "sqlite:////var/lib/glassq/ledger.db" or "postgres://USER@HOST/DATABASE"'
        yield not url or known is not None, key, shown, expected
        if known and not _is_known(known[1]):
            yield False, key, shown, f"{', '.join(DATABASES)} or another database that SQLAlchemy knows, before ://"


def _is_known(dialect: str) -> bool:
    """Whether SQLAlchemy has this kind of database, by itself or by a package that is installed."""
    if dialect in DATABASES:
        return True
    # imported here: it takes as long as all of the settings
    from importlib.metadata import entry_points

    return bool(entry_points(group="sqlalchemy.dialects", name=dialect))


def _source_rules(name: str, source: SourceSettings) -> list[Rule]:
    at, largest = f"sources.{name}", source.max_body
    fits, taken = bool(SOURCE_NAME.fullmatch(name)), (TASK_SOURCE, SCHEDULE_SOURCE)
    words = f"it is the word in /hooks/NAME; {' and '.join(taken)} are taken"
    fits, expected = fits and name not in taken, f"a name of 1 to 63 of a-z 0-9 and -, not - first: {words}"
    return [
        (fits, at, source.kind, expected),
        (largest is None or 0 < largest <= MAX_BODY, f"{at}.max_body", largest or 0, f"1B to {MAX_BODY}"),
    ]


def _worker_queue_rules(settings: Settings) -> list[Rule]:
    worker, rules = settings.worker, list[Rule]()
    for name, queue in worker.queues.items():
        at = f"worker.queues.{name}"
        fits = bool(SOURCE_NAME.fullmatch(name)) and len(queue_tube(settings, name)) <= MAX_TUBE
        rules += [
            (fits, at, name, f"a name of 1 to 63 of a-z 0-9 and -, not - first; {MAX_TUBE} characters with its tube's"),
            (queue.weight <= MAX_WEIGHT, f"{at}.weight", queue.weight, f"1 to {MAX_WEIGHT}"),
        ]
    enough = worker.kept < worker.processes or not worker.kept
    expected = f"more than the {worker.kept} that [worker.queues] keep: the others need at least one"
    return [*rules, (enough, "worker.processes", worker.processes, expected)]


def _unknown_queues(settings: Settings, text: str) -> Iterator[str]:
    """The mistakes of sources that name a queue which is not there: the pool's, as intake needs no [worker.queues]."""
    known = (MAIN_QUEUE, *settings.worker.queues)
    for name, source in settings.sources.items():
        if source.queue and source.queue not in known:
            key = ["sources", name, "queue"]
            expected = f"a queue of [worker.queues]: {', '.join(dict.fromkeys(known))}"
            where = mistakes.located(text, key)
            yield f'{settings.file}: {place(key)} = "{source.queue}": expected {expected}{where}'
