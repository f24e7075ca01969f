"""What the worker's docstring says that we use of gunicorn, held against the gunicorn that is installed.

gunicorn may change any of it in any release. A test that fails here names the part to look at after an upgrade.
"""

from __future__ import annotations

import inspect
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest
from gunicorn import __version__ as installed
from gunicorn.app.base import Application
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import get_parser, wsgi
from gunicorn.workers import gthread
from gunicorn.workers.gthread import TConn, ThreadWorker

from glassq.http import gunicorn_worker
from glassq.http.connection import BufferedConnection
from glassq.http.gunicorn_log import GunicornLog
from glassq.http.gunicorn_worker import BufferingWorker, CachedDateResponse
from glassq.intake.wsgi import IntakeArbiter, IntakeServer
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

# What we override, and how gunicorn calls it.
OVERRIDDEN = {
    (BufferingWorker, ThreadWorker): {
        "accept": ["self", "listener"],
        "murder_pending": ["self"],
        "_cap_keepalive": ["self", "deadline"],
        "handle": ["self", "conn"],
        "handle_request": ["self", "req", "conn"],
        "handle_error": ["self", "req", "client", "addr", "exc"],
        "_keepalive_after": ["self", "conn", "keepalive"],
        "finish_request": ["self", "conn", "fs"],
    },
    (BufferedConnection, TConn): {},
    (CachedDateResponse, wsgi.Response): {"default_headers": ["self"]},
    (IntakeArbiter, Arbiter): {"murder_workers": ["self"]},
    (GunicornLog, Logger): {"setup": ["self", "cfg"]},
    (IntakeServer, Application): {
        "do_load_config": ["self"],
        "load_config": ["self"],
        "load": ["self"],
        "reload": ["self"],
        "run": ["self"],
    },
}
# What we call, with at least these parameters.
CALLED: list[tuple[Callable[..., Any], list[str]]] = [
    (ThreadWorker.enqueue_req, ["conn"]),
    (ThreadWorker.murder_keepalived, []),
    (TConn.__init__, ["cfg", "sock", "client", "server"]),
    (TConn.close, []),
    (wsgi.create, ["req", "sock", "client", "server", "cfg", "response_class"]),
    (wsgi.Response.start_response, ["status", "headers"]),
    (wsgi.Response.write, ["arg"]),
    (wsgi.Response.close, []),
    (wsgi.Response.force_close, []),
    (wsgi.Response.should_close, []),
    (get_parser, ["cfg", "source", "source_addr"]),
    (Arbiter.spawn_worker, []),
    (Arbiter.manage_workers, []),
]


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("theirs", "name", "expected"),
    [(theirs, name, names) for (_, theirs), found in OVERRIDDEN.items() for name, names in found.items()],
    ids=lambda value: getattr(value, "__name__", value) if not isinstance(value, list) else "",
)
def test_gunicorn_calls_what_we_override_as_it_did(theirs: type, name: str, expected: list[str]) -> None:
    assert parameters(getattr(theirs, name)) == expected


@pytest.mark.parametrize(("ours", "theirs"), OVERRIDDEN, ids=lambda kind: kind.__name__)
def test_no_method_is_overridden_that_is_not_in_the_list(ours: type, theirs: type) -> None:
    names = {name for name, value in vars(ours).items() if inspect.isfunction(value) and hasattr(theirs, name)}
    assert names - {"__init__"} == set(OVERRIDDEN[ours, theirs])


@pytest.mark.parametrize(("function", "expected"), CALLED, ids=lambda value: getattr(value, "__qualname__", ""))
def test_gunicorn_still_has_what_we_call(function: Callable[..., Any], expected: list[str]) -> None:
    found = parameters(function)
    assert [name for name in expected if name not in found] == []


def test_the_docstring_of_the_worker_names_each_method_that_is_overridden() -> None:
    told = gunicorn_worker.__doc__ or ""
    missing = [name for (ours, _), names in OVERRIDDEN.items() if ours is not IntakeServer for name in names]
    assert [name for name in missing if not re.search(rf"\b{name}\b", told)] == []


def test_the_main_loop_knows_connections_by_these_names() -> None:
    """Attributes of instances, as the source of gunicorn's thread worker sets and reads them."""
    source = inspect.getsource(gthread)
    for owner, names in {
        "self": "poller nr_conns worker_connections max_keepalived keepalived_conns pending_conns alive cfg wsgi",
        "conn": "timeout parser data_ready sock client server",
    }.items():
        for name in names.split():
            assert re.search(rf"\b{owner}\.{name}\b", source), f"gunicorn {installed}: {owner}.{name}"


def test_the_loop_calls_what_the_poller_has_with_the_socket() -> None:
    source = inspect.getsource(ThreadWorker.wait_for_and_dispatch_events)
    assert "callback = key.data" in source
    assert "callback(key.fileobj)" in source


def test_a_parser_reads_a_request_that_was_put_back_and_gives_the_rest_away() -> None:
    parser = get_parser(Config(), iter(()), ("127.0.0.1", 1))
    parser.unreader.unread(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next")
    request = next(parser)
    assert request._expected_100_continue is False
    assert parser.finish_body()
    assert parser.unreader.take_buffered() == b"GET /next"


def test_a_connection_that_has_its_parser_gets_no_other_one() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        conn = BufferedConnection(Config(), ours, ("127.0.0.1", 1), ("127.0.0.1", 2))
        conn.parse_buffer()
        parser = conn.parser
        conn.init()
        assert conn.parser is parser


def test_setup_allows_no_major_version_that_was_not_tried() -> None:
    (major,) = re.findall(r'"gunicorn>=[\d.]+,<(\d+)"', (ROOT / "setup.py").read_text())
    assert int(installed.split(".")[0]) < int(major)
