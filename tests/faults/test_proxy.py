"""The proxy itself: a fault that does not happen would prove nothing."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.conftest import PATIENCE, free_port, wait_for
from tests.proxy import BACK, FREEZE, PASS, THERE, Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))
    served: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            while data := client.recv(65_536):
                client.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                served.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                served[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in (accepting, *served):
        thread.join(10)


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(echo) as running:
        yield running


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with connected(proxy) as sock:
        yield sock


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), PATIENCE)


def received(client: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer where the connection ends softly."""
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def test_bytes_pass_untouched(client: socket.socket) -> None:
    sent = bytes(range(256)) * 1000
    threading.Thread(target=client.sendall, args=(sent,)).start()
    assert received(client, len(sent)) == sent


def test_what_is_frozen_comes_when_it_is_healed(proxy: Proxy, client: socket.socket) -> None:
    proxy.set(FREEZE)
    client.sendall(b"ping")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    proxy.set(PASS)
    client.settimeout(PATIENCE)
    assert received(client, 4) == b"ping"


def test_a_reset_connection_is_reset_and_the_next_one_is_well(proxy: Proxy, client: socket.socket) -> None:
    client.sendall(b"a")
    assert received(client, 1) == b"a"
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert proxy.reset() == 0
    with connected(proxy) as other:
        other.sendall(b"b")
        assert received(other, 1) == b"b"


def test_a_cut_reply_ends_after_so_many_bytes(proxy: Proxy, client: socket.socket) -> None:
    proxy.set(Fault(cut=3, softly=True, ways=BACK))
    client.sendall(b"ping")
    assert received(client, 4) == b"pin"


def test_a_cut_request_ends_after_so_many_bytes(proxy: Proxy, client: socket.socket) -> None:
    proxy.set(Fault(cut=3, ways=THERE))
    client.sendall(b"ping")
    wait_for(lambda: proxy.links and proxy.links[0].dead, "the connection to be cut")
    assert proxy.links[0].passed["there"] == 3


def test_a_drip_passes_one_byte_after_the_other(proxy: Proxy, client: socket.socket) -> None:
    proxy.set(Fault(drip=0.01))
    client.sendall(b"ping")
    assert [client.recv(100) for _ in range(4)] == [b"p", b"i", b"n", b"g"]


def test_a_fault_of_one_connection_leaves_the_others_alone(proxy: Proxy, client: socket.socket) -> None:
    wait_for(lambda: proxy.links, "the first connection")
    proxy.links[0].set(FREEZE)
    client.sendall(b"a")
    with connected(proxy) as other:
        other.sendall(b"b")
        assert received(other, 1) == b"b"
    assert proxy.links[0].passed["there"] == 0


def test_a_delay_is_over_at_once_when_it_is_healed(proxy: Proxy, client: socket.socket) -> None:
    proxy.set(Fault(delay=3600))
    client.sendall(b"ping")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    proxy.set(PASS)
    client.settimeout(PATIENCE)
    assert received(client, 4) == b"ping"


def test_a_server_that_is_not_there_resets_whoever_connects() -> None:
    # it may come before the connection is known to be there
    with Proxy(free_port()) as proxy, pytest.raises(ConnectionResetError), connected(proxy) as sock:
        sock.recv(1)


def test_a_side_that_is_reset_resets_the_other() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Proxy(server.getsockname()[1]) as proxy,
        connected(proxy) as client,
    ):
        upstream, _ = server.accept()
        upstream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        upstream.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
