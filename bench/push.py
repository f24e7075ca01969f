"""Measures how many tasks per second are dispatched to a target that answers at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import load
import requests
import servers
from measure import PAUSE, median, rate_of_drain, say, side_by_side
from target import count, target

from glassq import taskqueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TUBE = "glassq.push.default"
PAYLOAD = load.request(0).partition(b"\r\n\r\n")[2]
# A limit so high that it never delays a task.
UNLIMITED = "queue:\n- name: default\n  rate: 1000000/s\n  bucket_size: 1000000\n  max_concurrent_requests: 1000\n"
# The time that all processes of a loop need to get going, in seconds.
WARM_UP = 0.5


def dispatch(place: Path, rounds: int, jobs: int, seconds: float, processes: int) -> dict[str, float]:
    """(g) tasks/s of the pool, beside processes that do less: a plain worker, and requests.Session alone.

    A load on the target from raw sockets shows that the target is not the bottleneck.
    """
    kinds: dict[str, Callable[[Path, int, Path], float]] = {
        "pool": lambda directory, port, record: of_pool(directory, port, record, jobs, processes),
        "naive": lambda directory, port, record: of_naive(directory, port, record, jobs, processes),
        "session": lambda _, port, record: of_session(port, record, seconds, processes),
        "target": lambda _, port, __: load.full_speed(port, connections=processes, seconds=seconds / 2).rate,
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds):
        for name, measure in kinds.items():
            say(f"dispatch: round {number + 1} of {rounds}, {name}")
            directory = place / f"{name}{number}"
            directory.mkdir(parents=True)
            with target(directory) as (port, record):
                found[name].append(measure(directory, port, record))
    return {name: median(rates) for name, rates in found.items()}


def of_pool(directory: Path, port: int, record: Path, jobs: int, processes: int) -> float:
    """The rate of glassq's pool, with tasks from taskqueue.add."""
    with (
        servers.queue(directory) as queue,
        servers.client(queue.port, TUBE) as client,
        servers.pool(directory, queue, processes, push=settings(directory, port, UNLIMITED)),
    ):
        client.pause_tube(TUBE, PAUSE)
        add(directory, jobs)
        client.pause_tube(TUBE, 0)
        rate = rate_of_drain(client, TUBE, jobs)
    return checked(rate, record, jobs)


def of_naive(directory: Path, port: int, record: Path, jobs: int, processes: int) -> float:
    """The rate of a worker without glassq: reserve, requests.Session.post, delete."""
    with (
        servers.plain_queue(directory) as queue_port,
        servers.client(queue_port, TUBE) as client,
        side_by_side(processes, naive_loop, queue_port, port),
    ):
        client.pause_tube(TUBE, PAUSE)
        for _ in range(jobs):
            client.put(PAYLOAD)
        client.pause_tube(TUBE, 0)
        rate = rate_of_drain(client, TUBE, jobs)
    return checked(rate, record, jobs)


def of_session(port: int, record: Path, seconds: float, processes: int) -> float:
    """The rate of requests.Session.post in a loop, without a queue."""
    with side_by_side(processes, session_loop, port):
        while count(record) < processes:
            time.sleep(0.01)
        time.sleep(WARM_UP)
        before, started = count(record), time.perf_counter()
        time.sleep(seconds)
        return (count(record) - before) / (time.perf_counter() - started)


def naive_loop(queue_port: int, port: int) -> None:
    client = servers.client(queue_port, TUBE)
    with requests.Session() as session:
        while True:
            job = client.reserve()
            session.post(f"http://127.0.0.1:{port}/work", data=job.body).raise_for_status()
            client.delete(job)


def session_loop(port: int) -> None:
    with requests.Session() as session:
        while True:
            session.post(f"http://127.0.0.1:{port}/work", data=PAYLOAD).raise_for_status()


def settings(directory: Path, port: int, queue_yaml: str) -> str:
    """The [push] part of glassq.toml. Writes queue.yaml."""
    (directory / "queue.yaml").write_text(queue_yaml)
    return f"""
[push]
queue_yaml = "{directory}/queue.yaml"
names = "sqlite:///{directory}/names.db"
[push.targets]
default = "http://127.0.0.1:{port}"
"""


def adding(directory: Path, queue: servers.Queue, tasks: int) -> list[float]:
    """The seconds of each of so many calls of taskqueue.add, by one program that does nothing else."""
    servers.settings(
        directory, queue, servers.free_port(), handler="handlers:noop", processes=1,
        push=settings(directory, servers.free_port(), UNLIMITED),
    )  # fmt: skip
    taskqueue.configure(str(directory / "glassq.toml"))
    times = []
    for _ in range(tasks):
        started = time.perf_counter()
        taskqueue.add(PAYLOAD, url="/work")
        times.append(time.perf_counter() - started)
    taskqueue.configure(None)
    return times


def add(directory: Path, jobs: int) -> None:
    """Adds this number of tasks, as a program would."""
    taskqueue.configure(str(directory / "glassq.toml"))
    for tasks in hundreds(jobs):
        taskqueue.Queue().add([taskqueue.Task(PAYLOAD, url="/work") for _ in range(tasks)])
    taskqueue.configure(None)


def hundreds(jobs: int) -> Iterator[int]:
    """The sizes of the batches, each as large as one add takes."""
    while jobs > 0:
        yield min(jobs, taskqueue.MAX_TASKS_PER_ADD)
        jobs -= taskqueue.MAX_TASKS_PER_ADD


def checked(rate: float, record: Path, jobs: int) -> float:
    """Returns the rate if the target has had each task exactly once; else ends the bench."""
    if count(record) != jobs:
        raise SystemExit(f"bench: {jobs} tasks, but the target got {count(record)} requests")
    return rate


def rows(found: dict[str, Any], processes: int) -> Iterator[tuple[str, ...]]:
    """Rows for the table of all results."""
    what, mine = f"dispatched tasks/s, {processes} children", found["pool"]
    session, naive, alone = found["session"], found["naive"], found["target"]
    yield what, f"{mine:.0f}", f"{session:.0f}", "bare loop: Session.post", f"{mine / session:.2f}", "0.5"
    yield what, f"{mine:.0f}", f"{naive:.0f}", "naive worker: reserve, Session.post, delete", f"{mine / naive:.2f}"
    yield "  the target alone, raw sockets", "", f"{alone:.0f}", "the bare loop is far below it"
