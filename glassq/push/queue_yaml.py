"""App Engine's queue.yaml: the queues, how fast each is delivered, and how its tasks are retried.

As in App Engine, a value is the text in the file, whatever YAML 1.1 makes of it: a queue may be named `on`, and 010 is
not an octal number. So each form below decides on text alone. All mistakes are reported at once, each with its line.
When you add a key: add its form here, and the key to conf/queue.yaml with its reason (a test compares the two).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import yaml

from glassq.edited import read_text
from glassq.errors import SettingsError, UnreadableText
from glassq.log import logger
from glassq.push.request import DEFAULT_QUEUE
from glassq.push.rule import RetryParameters
from glassq.push.yaml_forms import ANY, WHOLE, Form, FormReader, retry_forms, target_form
from glassq.push.yaml_nodes import compose, is_null, line_of, shown
from glassq.values import Rate

if TYPE_CHECKING:
    from collections.abc import Collection


log = logger("glassq.push")

# Enough for a thousand queues, in bytes. PyYAML takes a second or two for it; a wrong path must not take hours.
MAX_FILE = 256 << 10
# Of bucket_size and max_concurrent_requests; more is a typing mistake.
MAX_COUNT = 1_000_000


class PushQueue(msgspec.Struct, frozen=True, kw_only=True):
    """One queue. Its token bucket holds `bucket_size`, is full at first, and refills at `rate` (0: paused).

    `max_concurrent_requests` None: as many as the pool has children, less one. `target` is a name of [push.targets];
    None: "default".
    """

    name: str
    rate: Rate = Rate(5.0)
    bucket_size: int = 5
    max_concurrent_requests: int | None = None
    target: str | None = None
    retry: RetryParameters = RetryParameters()


def load(path: str | None, targets: Collection[str] | None = None) -> dict[str, PushQueue]:
    """The queues in the file by name, always with "default"; only that one without a path.

    `targets` are the names of [push.targets]; None: not checked. Raises SettingsError with all mistakes, one per line.
    """
    if path is None:
        return parse("", "", targets)
    try:
        text = read_text(path, "queue.yaml", MAX_FILE)
    except UnreadableText as error:
        raise SettingsError(f"{path}: {error}") from None
    return parse(text, path, targets)


def parse(text: str, file: str, targets: Collection[str] | None = None) -> dict[str, PushQueue]:
    """The queues in the text of a queue.yaml; `file` is its name in messages. Otherwise like `load`."""
    root = compose(text, file)
    reader = _Reader(file, targets)
    if root is not None and not is_null(root):
        reader.read(root)
    if reader.mistakes:
        raise reader.mistakes.error()
    return {DEFAULT_QUEUE: PushQueue(name=DEFAULT_QUEUE)} | reader.queues


_NAME = re.compile(r"[a-zA-Z0-9-]{1,100}")


def _count_form(remark: str = "") -> Form:
    return Form(f"a whole number from 1 to {MAX_COUNT}{remark}", WHOLE, int, lambda count: 1 <= count <= MAX_COUNT)


# None: a key that App Engine knows and that means nothing here (permissions, paid storage).
_ABOVE_FORMS: dict[str, Form | None] = {"application": None, "total_storage_limit": None, "resume_paused_queues": None}
_QUEUE_FORMS: dict[str, Form | None] = {
    "name": Form("1 to 100 of a-z A-Z 0-9 and -", _NAME),
    "mode": Form("push", re.compile("push")),
    "rate": Form(f'NUMBER/UNIT such as "5/s" (units s m h d), or 0; at most {Rate.MAX}/s', ANY, Rate),
    "bucket_size": _count_form(),
    "max_concurrent_requests": _count_form("; left out, as many as the pool has children, less one"),
    "acl": None,
}
_RETRY_FORMS = retry_forms("task")


class _Reader:
    """Collects the queues and the mistakes of one file."""

    def __init__(self, file: str, targets: Collection[str] | None) -> None:
        self.queues: dict[str, PushQueue] = {}
        self._reader = FormReader(file)
        self.mistakes, self._fields = self._reader.mistakes, self._reader.fields
        self._forms = _QUEUE_FORMS | {"target": target_form(targets)}
        # of each queue's name, to report a second one
        self._lines: dict[str, int] = {}

    def read(self, root: yaml.Node) -> None:
        """Reads the whole file. Raises SettingsError if there is too much to read or to report."""
        fields = self._fields.read(root, "", "queue: and a list of queues")
        _, queues = fields.pop("queue", (root, None))
        self._reader.values(fields, _ABOVE_FORMS, "", besides="queue")
        if isinstance(queues, yaml.SequenceNode):
            for number, node in enumerate(queues.value, 1):
                self._queue(node, f"queue number {number}: ")
        elif queues is not None and not is_null(queues):
            hint = "expected a list, each item with a name, such as - name: mail"
            self.mistakes.add(queues, f"queue{shown(queues)}: {hint}")

    def _queue(self, node: yaml.Node, place: str) -> None:
        before = len(self.mistakes)
        fields = self._fields.read(node, place, "a mapping with a name, such as - name: mail")
        key, name = fields.get("name", (node, None))
        if isinstance(name, yaml.ScalarNode) and _NAME.fullmatch(name.value):
            place = f'queue "{name.value}": '
            if name.value in self._lines:
                self.mistakes.add(key, f"{place}is there twice, the first time in line {self._lines[name.value]}")
            self._lines.setdefault(name.value, line_of(key))
        elif name is None and len(self.mistakes) == before:
            self.mistakes.add(node, f"{place}missing key name")
        _, mode = fields.get("mode", (node, None))
        if mode is not None and mode.value == "pull":
            self.mistakes.add(mode, f'{place}mode = "pull": glassq has push queues only')
            return
        retry = self._reader.retry(fields.pop("retry_parameters", None), place, _RETRY_FORMS, "task")
        values = self._reader.values(fields, self._forms, place, besides="retry_parameters")
        values.pop("mode", None)
        if len(self.mistakes) == before:
            self.queues[values["name"]] = PushQueue(retry=retry or RetryParameters(), **values)
