"""Three PostgreSQL servers for tests: a primary and two standbys, any one of which must have each commit.

Each stands behind a proxy of its own, through which clients and the other servers reach it: a node can be killed,
frozen, or cut off from everybody. Nothing here promotes by itself: that is Patroni's, or an operator's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import psycopg

from glassq.values import QueueUrl
from tests.ports import free_port
from tests.postgres import PATIENCE, ROLE, PostgresServer, binary, given, runs_as, wait
from tests.proxy import FREEZE, PASS, Proxy

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("a", "b", "c")


class Node:
    """One server of the cluster, with the proxy before it. `name` is its application_name at the primary."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.proxy = Proxy(port)
        self.server: PostgresServer | None = None

    @property
    def running(self) -> PostgresServer:
        assert self.server is not None, f"node {self.name} was never started"
        return self.server

    def kill(self) -> None:
        """Its machine is gone."""
        self.running.kill()
        self.proxy.reset()

    def start(self) -> None:
        """It comes again with what it had."""
        self.running.start()

    def freeze(self) -> None:
        """All its processes stand still; connections to it stay open."""
        for pid in (self.running.pid, *self.running.children()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in (self.running.pid, *self.running.children()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def cut(self) -> None:
        """Nothing reaches it, and nothing of it reaches anybody; nobody is told."""
        self.proxy.set(FREEZE)

    def heal(self) -> None:
        self.proxy.set(PASS)
        # what was kept meanwhile is of connections that both ends have given up
        self.proxy.reset()


class PostgresCluster:
    """A primary and two standbys. `primary` is the node that takes writes; `promote` makes it another one."""

    def __init__(
        self,
        directory: Path,
        *,
        options: dict[str, str] | None = None,
        env: dict[str, str] | None = None,
        proxied: bool = True,
    ) -> None:
        """`env` is added to the servers' environment. Not `proxied`, everybody reaches the nodes themselves."""
        self.directory = directory
        self._env = env
        self._proxied = proxied
        self._options = {"wal_sender_timeout": "5s", "wal_receiver_timeout": "5s", "hot_standby": "on"} | (
            options or {}
        )
        self.nodes = [Node(name, free_port()) for name in NAMES]
        self.primary = self.nodes[0]
        for node in self.nodes:
            node.proxy.__enter__()
        self.primary.server = PostgresServer(directory, options=self._options, port=self.primary.port, env=env)
        for node in self.nodes[1:]:
            self._clone(node)
        self._wait_for_others()
        self.wait_until_in_sync(2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all servers and proxies, and removes their files."""
        for node in self.nodes:
            if node.server is not None:
                if node.server.running():
                    node.server.kill()
                shutil.rmtree(node.server.directory, ignore_errors=True)
            node.proxy.__exit__()

    @property
    def standbys(self) -> list[Node]:
        return [node for node in self.nodes if node is not self.primary]

    def url(self, database: str, *, user: str = ROLE) -> QueueUrl:
        """The URL that names all nodes: a client finds the one that takes writes."""
        hosts = ",".join(f"127.0.0.1:{self._port(node)}" for node in self.nodes)
        return QueueUrl(f"postgres://{user}@{hosts}/{database}")

    def database(self) -> str:
        """A new, empty database that belongs to ROLE; its name."""
        return self.primary.running.database()

    def in_sync(self) -> list[str]:
        """The standbys that follow the primary and may confirm a commit."""
        found = self.primary.running.execute(
            "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'"
        )
        return sorted(str(name) for (name,) in found)

    def wait_until_in_sync(self, standbys: int) -> None:
        """Until at least so many standbys may confirm commits."""

        def enough() -> bool:
            # a primary that was just started may not answer yet
            with suppress(psycopg.OperationalError):
                return len(self.in_sync()) >= standbys
            return False

        wait(enough, f"fewer than {standbys} standbys follow")

    def longest(self) -> Node:
        """The standby that has received the most: the one to promote."""
        return max((node for node in self.standbys if node.running.running()), key=_received)

    def promote(self, node: Node) -> None:
        """Makes it the primary, as an operator does whose primary is gone; the others follow it from now on.

        The old primary must be dead: whoever promotes must be sure of it.
        """
        assert not self.primary.running.running(), "two primaries would both take writes"
        node.running.execute("SELECT pg_promote(true, 60)")
        self.primary = node
        self._wait_for_others()
        for other in self.standbys:
            if other.running.running():
                self.follow(other)

    def rejoin(self, node: Node) -> None:
        """A node that was a primary comes back as a standby, with a fresh copy of the data."""
        assert not node.running.running()
        shutil.rmtree(node.running.directory, ignore_errors=True)
        self._clone(node)

    def _wait_for_others(self) -> None:
        """From now on a commit waits for any one of the others."""
        others = ", ".join(node.name for node in self.nodes if node is not self.primary)
        self.primary.running.configure(synchronous_standby_names=f"ANY 1 ({others})")

    def _clone(self, node: Node) -> None:
        place = given(self.directory / f"postgres-{node.port}")
        command = [binary("pg_basebackup"), "-D", str(place / "data"), "-R", "-X", "stream", "-c", "fast"]
        subprocess.run(
            [*command, "-d", self._source(node)],
            check=True,
            capture_output=True,
            cwd=place,
            timeout=PATIENCE,
            **runs_as(),
        )
        node.server = PostgresServer(self.directory, options=self._options, port=node.port, home=place, env=self._env)

    def follow(self, node: Node) -> None:
        """The node follows the primary from now on."""
        node.running.configure(primary_conninfo=self._source(node))

    def _source(self, node: Node) -> str:
        return (
            f"host=127.0.0.1 port={self._port(self.primary)} user=postgres application_name={node.name} "
            "connect_timeout=5 keepalives_idle=5"
        )

    def _port(self, node: Node) -> int:
        return node.proxy.port if self._proxied else node.port


def _received(node: Node) -> int:
    [(received,)] = node.running.execute(
        "SELECT pg_wal_lsn_diff(coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')::bigint"
    )
    return int(str(received))
