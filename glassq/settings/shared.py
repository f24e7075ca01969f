"""What lives in the queue's database unless a key says otherwise: ledger, task names, users' credentials, bodies.

Where the queue is PostgreSQL, hosts share it; with beanstalkd they are files of this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from glassq.values import BodiesUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.values import QueueUrl


class SharedPlace(NamedTuple):
    """A key whose empty value means the queue's database, or else `here`.

    `amiss` is what follows where it is a file of one host, and the queue is for many.
    """

    section: str
    key: str
    here: str
    amiss: str


SHARED_PLACES = (
    SharedPlace(
        *("bodies", "url", "file:///var/lib/glassq/bodies"),
        "a pool on another host finds none of the large bodies that come in here, and buries their deliveries",
    ),
    SharedPlace(
        *("push", "names", "sqlite:////var/lib/glassq/task-names.db"),
        "a task's name that is taken here is free on other hosts",
    ),
    SharedPlace(
        *("glass", "credentials", "/var/lib/glassq/credentials"),
        "users who are added here are unknown on other hosts, and so are tokens that Google renews here",
    ),
    SharedPlace(
        *("ledger", "url", "sqlite:////var/lib/glassq/ledger.db"),
        "it has what this host's pool did; each host puts its own schedules, and finds its own duplicates",
    ),
)


def resolved(queue: QueueUrl, section: Callable[[str], Any]) -> Iterator[tuple[SharedPlace, Any]]:
    """The places that are left to the queue, and the section of each with it."""
    for shared in SHARED_PLACES:
        found = section(shared.section)
        if found is not None and not getattr(found, shared.key):
            where = queue.whole if queue.is_database else shared.here
            value = BodiesUrl(where) if shared.section == "bodies" else where
            yield shared, msgspec.structs.replace(found, **{shared.key: value})
