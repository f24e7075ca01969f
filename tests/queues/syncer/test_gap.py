"""A file that is missing among beanstalkd's files."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import greenstalk
import pytest

from glassq.errors import NoProof
from glassq.queues.beanstalk.prover import SyncerProver
from glassq.queues.beanstalk.syncer.regular import numbered
from tests.conftest import Beanstalkd, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_is_missing_when_beanstalkd_starts_is_told_once(tmp_path: Path) -> None:
    server = Beanstalkd(tmp_path, options=("-s", "8192"))
    try:
        with greenstalk.Client(("127.0.0.1", server.port)) as client:
            for _ in range(200):
                client.put("x" * 200)
        wait_for(lambda: len(numbered(server.dir, "kept")) == len(numbered(server.dir, "binlog")), "second names")
        server.stop(signal.SIGKILL)
        second = sorted(numbered(server.dir, "binlog"))[1]
        for kind in ("binlog", "kept"):
            (server.dir / f"{kind}.{second}").unlink()
        server.start()
        with greenstalk.Client(("127.0.0.1", server.port)) as client:
            prover = SyncerProver(server.syncer.address, connect_timeout=5)
            run = str(client.stats()["id"])
            with pytest.raises(NoProof, match=rf"binlog\.{second} came and went unseen"):
                prover.prove(run, deadline=time.monotonic() + 20)
            for _ in range(3):
                client.put("y")
                prover.prove(run, deadline=time.monotonic() + 20)
            prover.close()
    finally:
        server.stop()
