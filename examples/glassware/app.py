"""A Glassware that stores the photos of its users: an App Engine program in Flask, on glassq.

    POST /glassCallback   from Glass: adds a task with the ping's body, and answers OK at once
    POST /taskHandler     from glassq: checks the ping, fetches its photos and stores them

gunicorn runs it twice (see README.md): for Glass, with threads; and on the listener of [push.targets], for glassq's
pool, with one request at a time per process.
"""

from __future__ import annotations

import json
import logging
import os
import time
from ipaddress import ip_address
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Flask, abort, request

from glassq import Bury, Drop, Retry, taskqueue
from glassq.errors import PingRefused, SettingsError, Verdict
from glassq.glass import names
from glassq.glass.photos import GlassServices
from glassq.log import fields, setup
from glassq.settings import load
from glassq.sources.mirror import MirrorSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.glass.api import Account
    from glassq.glass.storage import Stored
    from glassq.settings import Settings

log = logging.getLogger("glassware")

Answer = tuple[str, int, dict[str, str]]

# A 2xx, so the queue drops the task; not 200, so that people see why.
SPOOFED = 299
# The statuses of tasks that were not simply done. The queue retries all but 2xx (README.md says why 422, too). None is
# 503, which says that the whole program is overloaded and slows down the queue.
STATUS: dict[type[Verdict], int] = {Drop: 200, Retry: 502, Bury: 422}
# Deadline of a task in seconds: earlier than the pool's (10 min) and gunicorn's (--timeout).
PATIENCE = 540.0


def get_app() -> Flask:
    """The program for gunicorn, with the settings that GLASSQ_CONFIG names, or /etc/glassq/glassq.toml."""
    settings = load(None, os.environ)
    setup(settings.log.level)
    return create_app(settings)


def create_app(settings: Settings) -> Flask:
    """The program. Raises SettingsError if the settings cannot be used."""
    taskqueue.configure(settings.file)
    listener = tasks_listener(settings)
    if "mirror" not in settings.sources:
        raise SettingsError(f"{settings.file}: missing section [sources.mirror]: it has the verify tokens of our pings")
    sender = MirrorSource(settings.secret("sources.mirror.verify_tokens_file"))
    glass = GlassServices.open(settings)
    app = Flask("glassware")
    app.config["MAX_CONTENT_LENGTH"] = settings.intake.max_body

    @app.post("/glassCallback")
    def glass_callback() -> str:
        taskqueue.add(url="/taskHandler", payload=request.get_data())
        return "OK"

    @app.post("/taskHandler")
    def task_handler() -> Answer:
        # On App Engine only the queue can send this header. Here any client can, so check the listener as well. The
        # header still keeps out web pages in a browser on this machine.
        came_in_at = request.environ["SERVER_NAME"], request.environ["SERVER_PORT"]
        if came_in_at != listener or "X-AppEngine-QueueName" not in request.headers:
            log.warning("not from the pool %s", fields(listener=":".join(came_in_at), wanted=":".join(listener)))
            abort(404)
        try:
            sender.check(request.get_data())
        except PingRefused as refused:
            return _answer(SPOOFED, f"dropped: {refused.detail}")
        return _answer(200, keep(json.loads(request.get_data()), glass, settings))

    @app.errorhandler(Verdict)
    def not_done(verdict: Verdict) -> Answer:
        return _answer(STATUS[type(verdict)], verdict.reason)

    @app.errorhandler(taskqueue.TransientError)
    def not_kept(error: taskqueue.TransientError) -> Answer:
        # Glass repeats a ping that did not get 200
        log.error("a ping cannot be kept now %s", fields(why=error))
        return "try again later\n", 503, {"Retry-After": "10", "Content-Type": "text/plain"}

    return app


def tasks_listener(settings: Settings) -> tuple[str, str]:
    """The only listener for /taskHandler, as SERVER_NAME and SERVER_PORT of WSGI: that of [push.targets] default.

    Raises SettingsError unless it is an address and port of this machine (127.0.0.1:8082).
    """
    url = urlsplit(settings.push.targets.get("default", "") if settings.push else "")
    try:
        if ip_address(url.hostname or "").is_loopback and url.port:
            return str(url.hostname), str(url.port)
    except ValueError:
        pass
    raise SettingsError(
        f'{settings.file}: [push.targets] default = "{url.geturl()}": expected http://127.0.0.1:PORT, '
        "where nobody but this machine can reach /taskHandler"
    )


def keep(ping: dict[str, Any], glass: GlassServices, settings: Settings) -> str:
    """Stores the photos of a shared timeline item and returns a summary. Raises Drop, Retry or Bury.

    Idempotent, because it may run twice for one ping: it does not fetch a photo that is stored already.
    """
    user, item_id = ping.get("userToken"), ping["itemId"]
    if not any(action.get("type") == "SHARE" for action in ping.get("userActions") or ()):
        raise Drop(f"timeline item {names.shown(item_id)}: nothing was shared")
    if not user:
        raise Bury(f"timeline item {names.shown(item_id)}: the ping has no userToken, so its user is unknown")
    over = time.monotonic() + PATIENCE
    account = glass.mirror.account(user, lambda: max(0.0, over - time.monotonic()))
    item = account.item(item_id)
    if item.get("isDeleted"):
        raise Drop(f"gone: timeline item {item_id} is deleted")
    stored = [
        _keep_one(item_id, number, attachment, account, glass, settings)
        for number, attachment in enumerate(_attachments(item))
    ]
    if not stored:
        raise Drop(f"timeline item {item_id}: no attachments to store")
    return "stored " + ", ".join(f"{each.url} ({each.size} bytes)" for each in stored)


def _attachments(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The photos, films and sounds of the item, in its order."""
    for attachment in item.get("attachments") or ():
        # its unknown type decides whether it counts, and so the names of all that follow
        if attachment.get("isProcessingContent"):
            raise Retry(f"timeline item {item['id']}: Glass still processes an attachment")
        # an attachment of this type holds only the address of a live stream
        if names.canonical(attachment.get("contentType")) != names.STREAM:
            yield attachment


def _keep_one(
    item_id: str, number: int, attachment: dict[str, Any], account: Account, glass: GlassServices, settings: Settings
) -> Stored:
    """Stores one attachment as ugi-<user>-<item>.jpg, or ...-<attachment>.jpg for all but the first of an item."""
    attachment_id = names.check_attachment(attachment.get("id"), item_id)
    kind = names.canonical(attachment.get("contentType"))
    name = names.object_name(account.user, item_id, attachment_id if number else None, kind)
    if found := glass.storage.find(name):
        return found
    # by its ids: a request to contentUrl would send the user's token to any address that stands there
    with account.media(item_id, attachment_id, settings.glass.max_attachment) as pieces:
        first = next(pieces, b"")
        return glass.storage.write(
            name,
            chain([first], pieces),
            content_type=names.stored_type(kind, first[: names.HEAD]),
            metadata={"item": item_id, "attachment": attachment_id},
            timeout=PATIENCE,
        )


def _answer(status: int, words: str) -> Answer:
    """An answer to the pool, which keeps the words of a non-2xx answer as evidence."""
    task = request.headers.get("X-AppEngine-TaskName", "")
    retries = request.headers.get("X-AppEngine-TaskRetryCount", "")
    log.info("task %s", fields(name=task, retries=retries, status=status, what=words))
    return f"{words}\n", status, {"Content-Type": "text/plain; charset=utf-8"}
