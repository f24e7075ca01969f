"""A load on one URL, from one light process: keep-alive connections with one ping in flight each."""

from __future__ import annotations

import hmac
import json
import selectors
import socket
import time
from dataclasses import dataclass, field

from servers import TOKEN

# The pause between two new connections, in seconds, lets all processes of the server wait for the next one; all pauses
# take at most so long.
CONNECT_PAUSE, MAX_CONNECT_PAUSE = 0.005, 1.0


@dataclass
class Load:
    """The result of a load: the seconds that each answer took, and how many answers were not 200."""

    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def rate(self) -> float:
        return len(self.times) / self.seconds

    def quantile(self, share: float) -> float:
        return quantile(self.times, share)

    def summary(self) -> dict[str, float]:
        """What is worth writing down."""
        return {"per_second": self.rate, "p50_ms": self.quantile(0.5) * 1000, "p99_ms": self.quantile(0.99) * 1000}


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def request(port: int, **more: object) -> bytes:
    """The bytes of a ping as Mirror sends it."""
    ping = {
        "collection": "timeline",
        "itemId": "3hidvm0xez6r8_dacdb3103b8b604_h8rpllg",
        "operation": "INSERT",
        "userToken": "115813563728193847561",
        "verifyToken": TOKEN,
        "userActions": [{"type": "SHARE"}],
        **more,
    }
    body = json.dumps(ping).encode()
    head = (
        f"POST /hooks/mirror HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json; charset=UTF-8\r\n"
        f"User-Agent: bench\r\nAccept: */*\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def github_request(port: int, size: int) -> bytes:
    """The bytes of a GitHub push with a body of this size, signed with TOKEN."""
    empty = json.dumps({"ref": "refs/heads/main", "before": "0" * 40, "text": ""})
    body = empty.replace('""', '"%s"' % ("x" * (size - len(empty)))).encode()
    head = (
        f"POST /hooks/github HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: GitHub-Hookshot/044aadd\r\n"
        "Accept: */*\r\nContent-Type: application/json\r\nX-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958\r\n"
        "X-GitHub-Event: push\r\nX-GitHub-Hook-ID: 292430182\r\nX-GitHub-Hook-Installation-Target-ID: 79929171\r\n"
        "X-GitHub-Hook-Installation-Target-Type: repository\r\n"
        f"X-Hub-Signature-256: sha256={hmac.digest(TOKEN.encode(), body, 'sha256').hex()}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def full_speed(port: int, *, connections: int, seconds: float, data: bytes = b"") -> Load:
    """`connections` senders, each of which sends its next ping as soon as the last one is answered.

    The ping is `data`; by default, one of Mirror.
    """
    data, load = data or request(port), Load()
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # One after the other: else the server's first process to wake accepts them all.
            selector.register(sock, selectors.EVENT_READ, [time.perf_counter()])
            sock.sendall(data)
            time.sleep(min(CONNECT_PAUSE, MAX_CONNECT_PAUSE / connections))
        started = time.perf_counter()
        deadline = started + seconds
        while (now := time.perf_counter()) < deadline:
            for key, _ in selector.select(0.1):
                answer = key.fileobj.recv(4096)
                now = time.perf_counter()
                if key.data[0] >= started:
                    load.times.append(now - key.data[0])
                load.failed += not answer.startswith(b"HTTP/1.1 200")
                if not answer:
                    raise SystemExit("bench: the server closed a connection")
                key.data[0] = now
                key.fileobj.sendall(data)
        load.seconds = now - started
        for key in list(selector.get_map().values()):
            key.fileobj.close()
    return load


def steady(port: int, *, rate: float, seconds: float) -> Load:
    """`rate` pings per second on one connection. Each ping contains the time when it was sent."""
    load = Load()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started = time.perf_counter()
        for number in range(int(rate * seconds)):
            time.sleep(max(0.0, started + number / rate - time.perf_counter()))
            sent = time.perf_counter()
            sock.sendall(request(port, sent=time.time()))
            answer = sock.recv(4096)
            load.times.append(time.perf_counter() - sent)
            load.failed += not answer.startswith(b"HTTP/1.1 200")
        load.seconds = time.perf_counter() - started
    return load
