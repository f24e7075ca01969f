"""What the worker's docstring says that we use of gunicorn, held against the gunicorn that is installed.

gunicorn may change any of it in any release. A test that fails here names the part to look at after an upgrade.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest
from gunicorn import __version__ as installed
from gunicorn.app.base import Application
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.http.wsgi import base_environ
from gunicorn.util import split_request_uri, unquote_to_wsgi_str
from gunicorn.workers import gthread
from gunicorn.workers.gthread import ThreadWorker

from glassq.http import gunicorn_worker
from glassq.http.arbiter import TendingArbiter
from glassq.http.gathering import GatheringWorker
from glassq.http.gunicorn_log import GunicornLog
from glassq.http.gunicorn_worker import BufferingWorker
from glassq.http.request import WholeRequest, plain
from glassq.intake.wsgi import IntakeServer
from tests.conftest import ROOT
from tests.intake.conftest import PARSERS

if TYPE_CHECKING:
    from collections.abc import Callable

# What we override, and how gunicorn calls it.
OVERRIDDEN = {
    (GatheringWorker, ThreadWorker): {
        "run": ["self"],
        "accept": ["self", "listener"],
        "murder_pending": ["self"],
        "murder_keepalived": ["self", "force"],
        "_cap_keepalive": ["self", "deadline"],
    },
    (BufferingWorker, ThreadWorker): {
        "run": ["self"],
        "notify": ["self"],
        "wait_for_and_dispatch_events": ["self", "timeout"],
    },
    (WholeRequest, Request): {"_peer_trusted_for_forwarded": ["self"]},
    (TendingArbiter, Arbiter): {"murder_workers": ["self"]},
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
    (Request.__init__, ["cfg", "unreader", "peer_addr"]),
    (Request.should_close, []),
    (IterUnreader.__init__, ["iterable"]),
    (IterUnreader.take_buffered, []),
    (base_environ, ["cfg"]),
    (split_request_uri, ["uri"]),
    (unquote_to_wsgi_str, ["string"]),
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
        "self": "poller sockets nr_conns worker_connections keepalived_conns pending_conns alive cfg tpool",
        "conn": "timeout",
    }.items():
        for name in names.split():
            assert re.search(rf"\b{owner}\.{name}\b", source), f"gunicorn {installed}: {owner}.{name}"


def test_the_loop_asks_no_more_of_its_connections_than_our_queue_can() -> None:
    source = inspect.getsource(ThreadWorker.run)
    assert re.findall(r"self\.(?:keepalived|pending)_conns(\S*)", source) == [":", "[0].timeout"]


def test_the_loop_calls_what_the_poller_has_with_the_socket() -> None:
    source = inspect.getsource(ThreadWorker.wait_for_and_dispatch_events)
    assert "callback = key.data" in source
    assert "callback(key.fileobj)" in source


@pytest.mark.parametrize("parser", PARSERS)
def test_a_request_is_parsed_from_its_bytes_and_leaves_the_rest(parser: str) -> None:
    config = Config()
    config.set("http_parser", parser)
    data = b"POST /a%20b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    for cfg in (config, plain(config)):
        request = WholeRequest(cfg, data, ("127.0.0.1", 1))
        assert (request.method, request.path, request.query, request.uri) == ("POST", "/a%20b", "c", "/a%20b?c")
        assert (request.version, request.headers) == ((1, 1), [("HOST", "a"), ("CONTENT-LENGTH", "3")])
        assert request.rest() == b"abc"


def test_our_plain_settings_are_gunicorns() -> None:
    config = Config()
    config.set("limit_request_line", 77)
    # a few are properties that no parser asks for
    names = [name for name in config.settings if not hasattr(Config, name)]
    assert len(names) > 50
    assert [name for name in names if getattr(plain(config), name) != getattr(config, name)] == []
    assert plain(config).is_ssl is config.is_ssl


def test_setup_allows_no_major_version_that_was_not_tried() -> None:
    (major,) = re.findall(r'"gunicorn>=[\d.]+,<(\d+)"', (ROOT / "setup.py").read_text())
    assert int(installed.split(".")[0]) < int(major)
