"""gunicorn's worker with a loop of ours: one thread works all requests, and one more keeps what they bring.

The loop gathers bytes (gathering.py; few, as a large body goes to disk: large.py). It works all requests that are whole
in one go, one after the other: parsed, given to the app, and answered at once, or held until the app's batch is kept
(batch.py). So a slow client delays no other, and none needs a thread of its own. A few more threads work the requests
with large bodies, and those whose path says that they may take long.

gunicorn documents none of what this builds on, so setup.py pins it below its next major version.
tests/http/test_gunicorn_internals.py compares this list with the installed gunicorn:

    ThreadWorker, overridden
      run                starts the thread that keeps, and ends it
      notify             once a second is enough
      accept             accepts in bursts; makes room when there are too many
      wait_for_and_dispatch_events  works what has become whole meanwhile
      murder_pending     408 for what is too slow, and the end of closing connections
      murder_keepalived  our connections know whether the loop looks for bytes on them
      _cap_keepalive     a stopping worker limits the wait for the rest of a request, too
    ThreadWorker, used
      app, cfg, wsgi, alive, poller, sockets, nr_conns, worker_connections, keepalived_conns, pending_conns, tpool;
      the main loop calls poller's callbacks with the socket
    STOP_KEEPALIVE_LINGER
    Request              parses from an unreader; _peer_trusted_for_forwarded overridden; unreader.take_buffered,
                         should_close, method, path, query, uri, version, headers used, and its parser with its limits:
                         message._fast_parser_module, _use_fast, _fast_limit_request_line, limit_request_fields,
                         limit_request_field_size
    util                 split_request_uri, unquote_to_wsgi_str
    wsgi.base_environ
    Arbiter              murder_workers overridden in glassq/http/arbiter.py; num_workers, spawn_worker,
                         manage_workers used there; LISTENERS, WORKERS used in glassq/intake/wsgi.py
"""

from __future__ import annotations

import gc
import selectors
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn.http import errors

from glassq.http.answer import WsgiAnswer
from glassq.http.batch import BatchThread, Held, Turn
from glassq.http.foreign import ForeignThreads
from glassq.http.gathering import MORE, send
from glassq.http.large import SpillingWorker, place
from glassq.http.loop_calls import LoopCalls
from glassq.http.priority import give_way
from glassq.http.problem import refusal
from glassq.log import fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.http.connection import Connection

# Threads for requests with large bodies: they wait for the disk mostly.
LARGE_THREADS = 4
# What one turn works before it hands over what it holds and looks at its connections again: requests, bytes, seconds.
TURN_REQUESTS, TURN_SIZE, TURN_SECONDS = 256, 1 << 20, 0.02
# What has been held for longer than this, in seconds, hangs: the app never takes that long to keep anything. Who comes
# then is told at once, instead of waiting as well.
MAX_HOLD = 4.0
# A thread that has waited for a disk or a server gets the interpreter back after at most this many seconds. Python's
# default is ten times as long, and the thread that keeps pings waits so after each sync.
SWITCH_INTERVAL = 0.0005

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.LimitRequestLine, 414),
    (errors.LimitRequestHeaders, 431),
    (errors.ExpectationFailed, 417),
    (errors.ParseException, 400),
)


class BufferingWorker(SpillingWorker):
    """The worker class named in conf/gunicorn.conf.py, which also sets `request_timeout` and the limits here."""

    #: maximum number of the requests whose answers are held; who comes then gets 503 at once
    max_held = 4096

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._notified = 0.0
        # turns whose answers are held, and the number of their requests
        self._held_turns: deque[Turn] = deque()
        self._held = 0

    def run(self) -> None:
        """gunicorn calls it in the worker, once the app is loaded."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        # what is loaded stays: to look through it again takes the collector 30 ms, for which every ping would wait
        gc.freeze()
        self._calls = LoopCalls()
        self.poller.register(self._calls.fileno(), selectors.EVENT_READ, self._calls.run)
        self._keeper = BatchThread(self.app.keep, partial(self._calls.defer, self._answer_turns))
        self._keeper.start()
        self._large_threads = ThreadPoolExecutor(LARGE_THREADS, "large", initializer=give_way)
        self._foreign_threads = ForeignThreads()
        super().run()
        self._foreign_threads.stop()
        self._large_threads.shutdown(wait=False, cancel_futures=True)
        self._keeper.stop(self.cfg.graceful_timeout)
        self.app.close()

    def notify(self) -> None:
        """Tells gunicorn's parent that the loop runs; once a second is enough."""
        now = time.monotonic()
        if now - self._notified >= 1:
            self._notified = now
            super().notify()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Waits for bytes and other events, then works what has become whole: one turn of the loop."""
        super().wait_for_and_dispatch_events(0.0 if self._ready else timeout)
        if self._ready:
            self._work()

    # -- work what is whole -------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Works the requests that are whole, one after the other, as many as a turn may; the rest is for the next."""
        turn = Turn()
        size, until = 0, turn.since + TURN_SECONDS
        for _ in range(TURN_REQUESTS):
            if not self._ready or size > TURN_SIZE or time.monotonic() > until:
                break
            conn = self._ready.popleft()
            size += conn.size
            try:
                self._work_one(conn, turn)
            except Exception as error:
                # whatever the app has handed over for it, the answer is another one
                del turn.items[len(turn.held) :]
                self._on_error(conn, error)
        if turn.held:
            self._small_first.saw_small(turn.since)
            self._hand_over(turn)

    def _work_one(self, conn: Connection, turn: Turn) -> None:
        """Has one request answered, now or when its turn is kept. Raises what gunicorn's parser raises."""
        request = self._parser.parse(conn.take(), conn.client)
        environ = self._environ.of(request, conn)
        closes = not (conn.whole and self.alive) or len(self.keepalived_conns) >= self._max_open
        closes = closes or request.closes
        if self.app.foreign and place(environ["PATH_INFO"]) in self.app.foreign:
            if not self._foreign_threads.take(partial(self._work_beside, conn, environ, closes)):
                self._drop_large(conn)
                self.refuse(conn, 503, "too many requests wait for a custom source")
            return
        if conn.large is not None:
            self._large_threads.submit(self._work_large, conn, environ, closes)
            return
        if environ["PATH_INFO"] in self.app.aside:
            self.tpool.submit(self._work_aside, conn, environ, closes)
            return
        environ["glassq.turn"] = turn.items
        answer = self._ask_app(environ, closes)
        if environ.pop("glassq.aside", None):
            # the app has seen that this takes long: it is asked again, where it may wait
            del environ["glassq.turn"]
            environ["wsgi.input"].seek(0)
            self.tpool.submit(self._work_aside, conn, environ, closes)
        elif len(turn.items) == len(turn.held):
            self._send_answer(conn, answer, closes)
        elif self._is_full(turn):
            turn.items.pop()
            self._refuse_to_keep(conn, closes)
        else:
            self._hold(turn, Held(conn, answer, closes))

    def _ask_app(self, environ: dict[str, Any], closes: bool) -> bytes:
        answer = WsgiAnswer()
        return answer.encode(self.wsgi(environ, answer.start), closes=closes)

    def _work_aside(self, conn: Connection, environ: dict[str, Any], closes: bool) -> None:
        """Works a request in a thread beside."""
        try:
            answer = self._ask_app(environ, closes)
            # metrics of many sources
            conn.make_room(len(answer))
        except Exception as error:
            self._calls.defer(self._on_error, conn, error)
        else:
            self._calls.defer(self._send_answer, conn, answer, closes)

    def _work_large(self, conn: Connection, environ: dict[str, Any], closes: bool) -> None:
        with self._small_first.step():
            self._work_beside(conn, environ, closes)

    def _work_beside(self, conn: Connection, environ: dict[str, Any], closes: bool) -> None:
        """Works a ping in a thread beside: to verify a large body takes long, as does its sync; so may foreign code."""
        body = conn.large
        environ["glassq.turn"] = []
        if body is not None:
            environ["glassq.body"] = body
        try:
            answer = self._ask_app(environ, closes)
        except BaseException as error:
            # foreign code may even exit
            self._calls.defer(self._on_error, conn, error)
        else:
            self._calls.defer(self._answer_beside, conn, environ["glassq.turn"], answer, closes)
        finally:
            if body is not None:
                body.close()

    def _answer_beside(self, conn: Connection, items: list[Any], answer: bytes, closes: bool) -> None:
        """What the app has handed over joins a turn of its own."""
        self.forget_large(conn)
        turn = Turn()
        if not items:
            self._send_answer(conn, answer, closes)
        elif self._is_full(turn):
            self._large_threads.submit(self.app.forsake, items)
            self._refuse_to_keep(conn, closes)
        else:
            turn.items += items
            self._hold(turn, Held(conn, answer, closes))
            self._hand_over(turn)

    # -- hold answers until they are kept -----------------------------------------------------------------------

    def _is_full(self, turn: Turn) -> bool:
        hangs = bool(self._held_turns) and turn.since - self._held_turns[0].since > MAX_HOLD
        return hangs or self._held >= self.max_held or self._claimed + self._held_size >= self.memory_max

    def _hold(self, turn: Turn, held: Held) -> None:
        size = held.conn.size
        turn.held.append(held)
        turn.size += size
        self._held += 1
        self._held_size += size

    def _hand_over(self, turn: Turn) -> None:
        self._held_turns.append(turn)
        self._keeper.hand_over(turn)

    def _refuse_to_keep(self, conn: Connection, closes: bool) -> None:
        self.app.counters.refused(503)
        self.log_refused(conn, 503, "too much waits to be kept")
        self._send_answer(conn, _not_kept(closes), closes)

    def _answer_turns(self, turns: Sequence[Turn], kept: Sequence[bool]) -> None:
        """Sends the answers that were held for these turns."""
        results = iter(kept)
        for turn in turns:
            self._held_turns.popleft()
            self._held -= len(turn.held)
            self._held_size -= turn.size
            for conn, answer, closes in turn.held:
                self._send_answer(conn, answer if next(results) else _not_kept(closes), closes)

    def _send_answer(self, conn: Connection, answer: bytes, closes: bool) -> None:
        sent = send(conn.sock, answer, MORE if closes else 0)
        if sent == len(answer) and not closes:
            self.next_request(conn)
            return
        if 0 <= sent < len(answer):
            sender = conn.client[0] if conn.client else ""
            self.app.request_log.warning("dropped %s", fields(why="reads no answers", sender=sender))
        self.hang_up(conn)

    def _on_error(self, conn: Connection, error: BaseException) -> None:
        """Answers a request that could not be parsed; the answer echoes nothing of it."""
        self._drop_large(conn)
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        if status == 500:
            self.app.request_log.error("bug in the HTTP server", exc_info=error)
        self.refuse(conn, status, type(error).__name__)

    def _drop_large(self, conn: Connection) -> None:
        if conn.large is not None:
            self._large_threads.submit(conn.large.close)
            self.forget_large(conn)


def _not_kept(closes: bool) -> bytes:
    return refusal(503, "The request was not accepted. Send it again later.", closes=closes)
