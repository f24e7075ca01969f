"""What commands are told about, on any of Amazon's services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.delivery import decode
from glassq.queues.beanstalk.protocol import JobStats
from tests.cli.conftest import a_delivery, evidence

if TYPE_CHECKING:
    from collections.abc import Collection

    from glassq.delivery import Delivery
    from glassq.queues.base import State
    from tests.cli.conftest import Cli
    from tests.queues.raw import Queue

ROUTE = '[[routes]]\nsource = "mirror"\nhandler = "json:loads"\n[worker.queues.slow]\n'


def put(cli: Cli, *more: str) -> str:
    """The id of a delivery that is put."""
    (cli.directory / "body").write_text('{"collection": "timeline"}')
    said = cli("put", str(cli.directory / "body"), "--source", "mirror", "--no-check", *more)
    assert said.code == 0, said.err
    return said.out.strip()


def counts(cli: Cli, tube: str = "glassq") -> dict[str, int]:
    tubes = cli("status", "--json").json["queue"]["tubes"]
    found = next((each for each in tubes if each["name"] == tube), {})
    return {state: found.get(state, 0) for state in ("ready", "delayed", "buried")}


def buried(message: str = "no such photo") -> Delivery:
    return a_delivery(evidence=(evidence(message),), buried=message)


def ids(queue: Queue, tube: str, states: Collection[State] = ("ready", "delayed", "buried")) -> set[str]:
    jobs = queue.scan(frozenset(states), tube)
    return {decode(queue.peek(each.id).body).id for each in jobs if isinstance(each, JobStats)}
