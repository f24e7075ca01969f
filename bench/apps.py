"""The apps that glassq's intake is compared with: what one would write without glassq."""

from __future__ import annotations

import json
import os
import threading

import falcon
import greenstalk

_local = threading.local()


class Bare:
    """Reads the ping and queues nothing."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.bounded_stream.read()


class Naive:
    """Parses the ping and puts it into the queue: no check, no envelope, no timeout, no reconnect."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = req.bounded_stream.read()
        json.loads(body)
        if not hasattr(_local, "client"):
            address = ("127.0.0.1", int(os.environ["BENCH_QUEUE_PORT"]))
            _local.client = greenstalk.Client(address, encoding=None, use="glassq")
        _local.client.put(body)


bare = falcon.App()
bare.add_route("/hooks/mirror", Bare())
naive = falcon.App()
naive.add_route("/hooks/mirror", Naive())
