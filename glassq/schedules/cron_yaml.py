"""App Engine's cron.yaml: requests that are sent at certain times, as tasks.

A request is a GET with the header X-AppEngine-Cron, as on App Engine, and is not retried unless its entry has
retry_parameters. Source of the rules: Google's page on cron.yaml.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import yaml

from glassq.delivery import Delivery
from glassq.edited import read_text
from glassq.errors import SettingsError, UnreadableText
from glassq.push.http_request import beneath
from glassq.push.request import CRON_QUEUE, SOURCE, TaskRequest
from glassq.push.rule import RetryParameters
from glassq.push.yaml_forms import ANY, Form, FormReader, retry_forms, target_form
from glassq.push.yaml_nodes import compose, is_null, shown
from glassq.schedules import groc
from glassq.schedules.scheduler import Schedule

if TYPE_CHECKING:
    from collections.abc import Collection

    from glassq.values import Tube

# Enough for a thousand entries, in bytes.
MAX_FILE = 256 << 10
# Without retry_parameters a request that failed is not sent again before its next time.
NO_RETRY = RetryParameters(task_retry_limit=0)
_FORMS: dict[str, Form | None] = {
    "description": Form("a text", ANY),
    "url": Form("a path that begins with one /, such as /tasks/summary", ANY, allowed=lambda url: _is_sendable(url)),
    "schedule": Form("a schedule", ANY),
    "timezone": Form("a time zone such as Europe/Berlin", ANY),
    # Google's own: who may see it, and which release runs it
    "login": None,
    "version": None,
    "attempt_deadline": None,
}
_RETRY_FORMS = retry_forms("job")


def load(path: str, base: Tube, targets: Collection[str] | None = None) -> list[Schedule]:
    """The schedules in the file. `base` is [queue] tube, `targets` are the names of [push.targets]; None: not checked.

    Raises SettingsError with all mistakes, one per line.
    """
    try:
        text = read_text(path, "cron.yaml", MAX_FILE)
    except UnreadableText as error:
        raise SettingsError(f"{path}: {error}") from None
    reader = _Reader(path, base, targets)
    root = compose(text, path)
    if root is not None and not is_null(root):
        reader.read(root)
    if reader.mistakes:
        raise reader.mistakes.error()
    return reader.schedules


class _Reader:
    """Collects the schedules and the mistakes of one file."""

    def __init__(self, file: str, base: Tube, targets: Collection[str] | None) -> None:
        self.schedules: list[Schedule] = []
        self._base = base
        self._reader = FormReader(file)
        self.mistakes = self._reader.mistakes
        self._forms = _FORMS | {"target": target_form(targets)}
        self._names = Counter[str]()

    def read(self, root: yaml.Node) -> None:
        fields = self._reader.fields.read(root, "", "cron: and a list of entries")
        _, entries = fields.pop("cron", (root, None))
        self._reader.values(fields, {}, "", besides="cron")
        if isinstance(entries, yaml.SequenceNode):
            for number, node in enumerate(entries.value, 1):
                self._entry(node, f"entry number {number}: ")
        elif entries is not None and not is_null(entries):
            self.mistakes.add(entries, f"cron{shown(entries)}: expected a list, each item with a url and a schedule")

    def _entry(self, node: yaml.Node, place: str) -> None:
        before = len(self.mistakes)
        fields = self._reader.fields.read(node, place, "a mapping with url and schedule")
        retry = self._reader.retry(fields.pop("retry_parameters", None), place, _RETRY_FORMS, "job")
        values = self._reader.values(fields, self._forms, place, besides="retry_parameters")
        for key in ("url", "schedule"):
            if key not in fields and len(self.mistakes) == before:
                self.mistakes.add(node, f"{place}missing key {key}")
        if len(self.mistakes) > before:
            return
        said, zone = values["schedule"], values.get("timezone", "UTC")
        try:
            times = groc.parse(said, zone)
        except ValueError as error:
            self.mistakes.add(fields["schedule"][1], f"{place}schedule{shown(fields['schedule'][1])}: expected {error}")
            return
        name = self._name(values["url"])
        make = partial(_task, name, values["url"], values.get("target", ""), retry or NO_RETRY, self._base)
        self.schedules.append(Schedule(name, said, zone, times, catch_up=False, make=make))

    def _name(self, url: str) -> str:
        """The path, which names the entry on App Engine's console too; the second of a path gets a number."""
        path = url.partition("?")[0][:180]
        self._names[path] += 1
        number = self._names[path]
        return f"{path}#{number}" if number > 1 else path


def _task(name: str, url: str, target: str, retry: RetryParameters, base: Tube, key: str, due: datetime) -> Delivery:
    """The delivery of the task that sends the request which is due at this time."""
    stamp = due.strftime("%Y-%m-%dT%H:%M:%SZ")
    request = TaskRequest(
        queue=CRON_QUEUE, name=key, url=url, method="GET", target=target, eta=due.timestamp(), retry=retry
    )
    labels = {**request.labels(), "cron": f"{name} {stamp}"}
    return Delivery(id=key, source=SOURCE, received=datetime.now(UTC), body=b"", labels=labels, tube=str(base))


def _is_sendable(url: str) -> bool:
    try:
        beneath("/", url)
    except ValueError:
        return False
    return True
