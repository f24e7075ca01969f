"""A service of Amazon's for tests, in a process of its own, behind a proxy that can refuse connections."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

import msgspec
import urllib3

from tests.conftest import Process, wait_for
from tests.ports import free_port
from tests.proxy import Proxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.queues.aws.faults import AwsFaults

REGION = "eu-west-1"
# What boto3's own chain finds: any will do.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}


# Connections are kept: some tests ask often.
_HTTP = urllib3.PoolManager(maxsize=8, retries=False, timeout=60)


class AwsService:
    """One such service. `port` is where it is reached; `stop` leaves all as it is."""

    # the module that is run, with its port
    module: str

    def __init__(self, directory: Path) -> None:
        self._own = free_port()
        log = directory / f"{self.module.split('.')[2]}.log"
        self._process = Process([sys.executable, "-m", self.module, str(self._own)], log)
        self.port = free_port()
        self._front: Proxy | None = None
        wait_for(self._answers, f"{self.module} to answer")
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        """It can be reached again."""
        self._front = Proxy(self._own, at=self.port)
        self._front.__enter__()

    def stop(self) -> None:
        """It cannot be reached: connections end, new ones are refused."""
        front, self._front = self._front, None
        if front is not None:
            front.__exit__()

    def end(self) -> None:
        self.stop()
        self._process.end()

    def endpoint(self, port: int = 0) -> str:
        return f"http://127.0.0.1:{port or self.port}"

    @property
    def back_door(self) -> str:
        """Where it is reached even while it is stopped."""
        return self.endpoint(self._own)

    def done_to(self) -> dict[str, dict[str, int]]:
        """By the id of a delivery: what the service did to it that may have it worked twice."""
        return dict(self.ask("done-to"))

    def calls(self, *, clear: bool = False) -> dict[str, int]:
        """How often what was called."""
        return dict(self.ask("calls", b"clear" if clear else None))

    def be(self, faults: AwsFaults) -> None:
        """What it does from now on."""
        self.ask("faults", msgspec.json.encode(faults))

    def ask(self, what: str, body: bytes | None = None) -> Any:
        """Past the proxy, what no client may ask."""
        return _HTTP.request("POST", f"{self.back_door}/glassq/{what}", body=body or b"").json()

    def _answers(self) -> bool:
        try:
            self.ask("")
        except urllib3.exceptions.HTTPError:
            return False
        return True
