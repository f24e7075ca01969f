"""The webhook endpoint that one would write with each library: parse the ping, add a job, answer."""

from __future__ import annotations

import json

import falcon
import tasks


class Hook:
    """POST /hooks/mirror."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = req.bounded_stream.read()
        json.loads(body)
        tasks.add(body.decode())


app = falcon.App()
app.add_route("/hooks/mirror", Hook())
