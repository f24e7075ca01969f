"""App Engine's queue.yaml: the queues, how fast each is delivered, and how its tasks are retried.

As in App Engine, a value is the text in the file, whatever YAML 1.1 makes of it: a queue may be named `on`, and 010 is
not an octal number. So each form below decides on text alone. All mistakes are reported at once, each with its line.
When you add a key: add its form here, and the key to conf/queue.yaml with its reason (a test compares the two).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from glassq.edited import read_text
from glassq.errors import SettingsError, UnreadableText
from glassq.log import logger
from glassq.push.request import DEFAULT_QUEUE
from glassq.push.rule import RetryParameters, expected, fits
from glassq.push.yaml_nodes import MAX_SHOWN, FieldReader, Mistakes, compose, is_null, line_of, quoted, shown
from glassq.values import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from glassq.push.yaml_nodes import KeyAndValue

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


@dataclass(frozen=True, slots=True)
class _Form:
    """A form of values: `expected` in words, a pattern of the text, what it is converted to, and which are allowed."""

    expected: str
    pattern: re.Pattern[str]
    convert: Callable[[str], Any] = str
    allowed: Callable[[Any], bool] = lambda _: True

    def read(self, text: str) -> Any:
        """The value. Raises ValueError for a text of another form."""
        value = self.convert(text) if self.pattern.fullmatch(text) else None
        if value is None or not self.allowed(value):
            raise ValueError(f"expected {self.expected}")
        return value


_ANY = re.compile(r"(?s).*")
_NAME = re.compile(r"[a-zA-Z0-9-]{1,100}")
_WHOLE = re.compile(r"0|[1-9][0-9]{0,14}")
_NUMBER = re.compile(r"(?:(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{0,15})?|\.[0-9]{1,15})(?:[eE][-+]?[0-9]{1,2})?")
_AGE = re.compile(rf"(?:{_NUMBER.pattern})[smhd]")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _count_form(remark: str = "") -> _Form:
    return _Form(f"a whole number from 1 to {MAX_COUNT}{remark}", _WHOLE, int, lambda count: 1 <= count <= MAX_COUNT)


def _retry_form(key: str, pattern: re.Pattern[str], convert: Callable[[str], float], words: str = "") -> _Form:
    return _Form(words or expected(key), pattern, convert, lambda value: fits(key, value))


def _age(text: str) -> float:
    return float(text[:-1]) * _UNITS[text[-1]]


def _target_form(targets: Collection[str] | None) -> _Form:
    if targets is None:
        return _Form("a name of [push.targets]", _ANY, allowed=bool)
    known = ", ".join(sorted(targets)) or "(there is none)"
    return _Form(f"one of [push.targets]: {known}", _ANY, allowed=lambda name: name in targets)


# None: a key that App Engine knows and that means nothing here (permissions, paid storage).
_ABOVE_FORMS: dict[str, _Form | None] = {"application": None, "total_storage_limit": None, "resume_paused_queues": None}
_QUEUE_FORMS: dict[str, _Form | None] = {
    "name": _Form("1 to 100 of a-z A-Z 0-9 and -", _NAME),
    "mode": _Form("push", re.compile("push")),
    "rate": _Form(f'NUMBER/UNIT such as "5/s" (units s m h d), or 0; at most {Rate.MAX}/s', _ANY, Rate),
    "bucket_size": _count_form(),
    "max_concurrent_requests": _count_form("; left out, as many as the pool has children, less one"),
    "acl": None,
}
_EXPECTED_AGE = 'NUMBER and UNIT such as "2d" (units s m h d), more than 0 and at most 3650d'
_RETRY_FORMS: dict[str, _Form | None] = {
    "task_retry_limit": _retry_form("task_retry_limit", _WHOLE, int),
    "task_age_limit": _retry_form("task_age_limit", _AGE, _age, _EXPECTED_AGE),
    "min_backoff_seconds": _retry_form("min_backoff_seconds", _NUMBER, float),
    "max_backoff_seconds": _retry_form("max_backoff_seconds", _NUMBER, float),
    "max_doublings": _retry_form("max_doublings", _WHOLE, int),
}


class _Reader:
    """Collects the queues and the mistakes of one file."""

    def __init__(self, file: str, targets: Collection[str] | None) -> None:
        self.queues: dict[str, PushQueue] = {}
        self.mistakes = Mistakes(file)
        self._fields = FieldReader(self.mistakes)
        self._forms = _QUEUE_FORMS | {"target": _target_form(targets)}
        # of each queue's name, to report a second one
        self._lines: dict[str, int] = {}

    def read(self, root: yaml.Node) -> None:
        """Reads the whole file. Raises SettingsError if there is too much to read or to report."""
        fields = self._fields.read(root, "", "queue: and a list of queues")
        _, queues = fields.pop("queue", (root, None))
        self._values(fields, _ABOVE_FORMS, "", besides="queue")
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
        retry = self._retry(fields.pop("retry_parameters", None), place)
        values = self._values(fields, self._forms, place, besides="retry_parameters")
        values.pop("mode", None)
        if len(self.mistakes) == before:
            self.queues[values["name"]] = PushQueue(retry=retry, **values)

    def _retry(self, field: KeyAndValue | None, place: str) -> RetryParameters:
        if field is None or is_null(field[1]):
            return RetryParameters()
        key, node = field
        place += "retry_parameters: "
        fields = self._fields.read(node, place, "a mapping, such as task_retry_limit: 7")
        try:
            return RetryParameters.of(**self._values(fields, _RETRY_FORMS, place))
        except ValueError as error:
            self.mistakes.add(key, f"{place}{error}")
            return RetryParameters()

    def _values(
        self, fields: Mapping[str, KeyAndValue], forms: Mapping[str, _Form | None], place: str, besides: str = ""
    ) -> dict[str, Any]:
        """The values by key. `besides` is a known key that the caller reads itself."""
        values: dict[str, Any] = {}
        for name, (key, node) in fields.items():
            if name not in forms:
                known = [*(name for name, form in forms.items() if form), *filter(None, [besides])]
                close = difflib.get_close_matches(name[:MAX_SHOWN], known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"expected one of: {', '.join(known)}"
                self.mistakes.add(key, f"{place}unknown key {quoted(name)[1:-1]}; {hint}")
            elif form := forms[name]:
                try:
                    values[name] = form.read(node.value if isinstance(node, yaml.ScalarNode) else "")
                except ValueError:
                    self.mistakes.add(node, f"{place}{name}{shown(node)}: expected {form.expected}")
            else:
                log.debug("%s:%d: %s means nothing to glassq and is ignored", self.mistakes.file, line_of(key), name)
        return values
