"""The job that does nothing, by the library that BENCH_PEER names. Each library imports it as the module `tasks`."""

from __future__ import annotations

import json
import os
import uuid

import redis

URL = os.environ["BENCH_REDIS"]
NAME = os.environ["BENCH_PEER"]

if NAME == "huey":
    from huey import RedisHuey

    huey = RedisHuey("bench", url=URL)

    @huey.task()
    def noop(body: str = "") -> None:
        """Does nothing."""

    add = noop
elif NAME == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=URL))

    @dramatiq.actor
    def noop(body: str = "") -> None:
        """Does nothing."""

    add = noop.send
elif NAME == "celery":
    from celery import Celery

    app = Celery("tasks", broker=URL)
    # What a lost worker process had begun is worked again.
    app.conf.update(task_acks_late=True, task_ignore_result=True, broker_connection_retry_on_startup=True)

    @app.task(name="noop")
    def noop(body: str = "") -> None:
        """Does nothing."""

    add = noop.delay
elif NAME == "rq":
    from rq import Queue

    _queue = Queue(connection=redis.Redis.from_url(URL))

    def add(body: str = "") -> None:
        """Adds a job whose result is not kept."""
        _queue.enqueue("noop.noop", body, result_ttl=0)


def add_many(count: int, body: str) -> None:
    """Adds so many jobs before they are measured."""
    client = redis.Redis.from_url(URL)
    if NAME != "sidekiq":
        for _ in range(count):
            add(body)
        return
    client.sadd("queues", "default")
    with client.pipeline(transaction=False) as packet:
        for _ in range(count):
            job = {"class": "Noop", "args": [body], "jid": uuid.uuid4().hex[:24], "queue": "default", "retry": True}
            packet.lpush("queue:default", json.dumps({**job, "created_at": 0.0, "enqueued_at": 0.0}))
        packet.execute()
