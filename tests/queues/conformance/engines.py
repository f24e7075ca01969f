"""The engines that the conformance suite knows: one class each, and one row in ENGINES."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.queues.conformance.on_beanstalkd import BeanstalkdEngine, LoneBeanstalkdEngine
from tests.queues.conformance.on_postgres import PostgresEngine
from tests.queues.conformance.on_sqs import SqsEngine
from tests.queues.conformance.on_swf import SwfEngine

if TYPE_CHECKING:
    from tests.queues.conformance.engine import Engine

# By the name that `make conformance ENGINE=` takes.
ENGINES: dict[str, type[Engine]] = {
    "beanstalkd": BeanstalkdEngine,
    "lone-beanstalkd": LoneBeanstalkdEngine,
    "postgres": PostgresEngine,
    "sqs": SqsEngine,
    "swf": SwfEngine,
}


def not_tried() -> dict[str, str]:
    """The engines that do not run here, and why."""
    return {name: why for name, engine in ENGINES.items() if (why := engine.missing())}
