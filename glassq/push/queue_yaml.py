"""App Engine's queue.yaml, read as it is: the queues, how fast each is delivered, and how its tasks are retried.

A value is the text that stands in the file, as it was for App Engine; what YAML 1.1 would make of it (a queue named
`on` is no truth, 010 no octal number) is not asked. So each form below decides on text alone.
All mistakes are reported at once, each with its line.
When you add a key: add its form here, and the key to conf/queue.yaml with its reason (a test compares the two).
"""

from __future__ import annotations

import difflib
import json
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

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

log = logger("glassq.push")

# A thousand queues and more, in bytes. The parser takes a second or two for it; a wrong path must not take hours.
MAX_FILE = 256 << 10
# Aliases and merge keys unfold a small file into a large one: so many keys and values are looked at, no more.
MAX_STEPS = 100_000
# Whoever made more mistakes than this mends these first.
MAX_MISTAKES = 50
# Of a wrong value, in characters.
MAX_SHOWN = 60
# Per second. A pool delivers some thousands; more is a typing mistake.
MAX_RATE = 1_000_000

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_NAME = re.compile(r"[a-zA-Z0-9-]{1,100}")
_RATE = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{0,15})?)/(?P<unit>[smhd])")
_WHOLE = re.compile(r"0|[1-9][0-9]{0,14}")
_NUMBER = re.compile(r"(?:(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{0,15})?|\.[0-9]{1,15})(?:[eE][-+]?[0-9]{1,2})?")

_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"
_KINDS: dict[type[yaml.Node], str] = {yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list"}


class PushQueue(msgspec.Struct, frozen=True, kw_only=True):
    """One queue. Tokens come at `rate` (per second; 0: paused) into a bucket of `bucket_size`, full at first.

    `max_concurrent_requests` None: as many as the pool has children, less one. `target` names one of [push.targets];
    None: "default".
    """

    name: str
    rate: float = 5.0
    bucket_size: int = 5
    max_concurrent_requests: int | None = None
    target: str | None = None
    retry: RetryParameters = RetryParameters()


def load(path: str | None, targets: Collection[str] | None = None) -> dict[str, PushQueue]:
    """The queues in the file by name, "default" always among them; without a path, that one alone.

    `targets` are the names of [push.targets]; None: not checked. Raises SettingsError with all mistakes, one a line.
    """
    if path is None:
        return parse("", "", targets)
    try:
        text = read_text(path, "queue.yaml", MAX_FILE)
    except UnreadableText as error:
        raise SettingsError(f"{path}: {error}") from None
    return parse(text, path, targets)


def parse(text: str, file: str, targets: Collection[str] | None = None) -> dict[str, PushQueue]:
    """The queues in the text of a queue.yaml; `file` is its name for messages. Else as `load`."""
    root = _compose(text, file)
    reader = _Reader(file, targets)
    if root is not None and root.tag != _NULL:
        reader.read(root)
    if reader.mistakes:
        raise reader.refusal()
    return {DEFAULT_QUEUE: PushQueue(name=DEFAULT_QUEUE)} | reader.queues


def _compose(text: str, file: str) -> yaml.Node | None:
    try:
        # no object is made of it: aliases stay references, and tags mere names
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _not_yaml(text, file, mark.line if mark else 0, (error.problem or "")[:200]) from None
    except yaml.reader.ReaderError as error:
        raise _not_yaml(text, file, text.count("\n", 0, error.position), error.reason) from None
    except RecursionError:
        raise SettingsError(f"{file}: is nested too deep") from None
    except (ValueError, OverflowError) as error:
        # the parser's own slips: "\UFFFFFFFF" is no character, %YAML with a version of thousands of digits
        raise SettingsError(f"{file}: is not YAML: {str(error)[:200]}") from None


def _not_yaml(text: str, file: str, index: int, why: str) -> SettingsError:
    """The error about the line with this index, and the line itself where there is one."""
    line = (text.splitlines() or [""])[index : index + 1]
    shown = f": {_quoted(line[0])}" if line and line[0].strip() else ""
    return SettingsError(f"{file}:{index + 1}: is not YAML: {why}{shown}")


@dataclass(frozen=True, slots=True)
class _Form:
    """What a value looks like: in words, and as a function of its text that raises ValueError for any other."""

    expected: str
    read: Callable[[str], object]


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError
        return text

    return read


def _rate(text: str) -> float:
    match = _RATE.fullmatch("0/s" if text == "0" else text)
    rate = float(match["number"]) / _UNITS[match["unit"]] if match else -1
    if not 0 <= rate <= MAX_RATE:
        raise ValueError
    return rate


def _count(text: str) -> int:
    number = int(_matching(_WHOLE)(text))
    if not 1 <= number <= MAX_RATE:
        raise ValueError
    return number


def _retry_form(key: str, read: Callable[[str], float], words: str = "") -> _Form:
    def checked(text: str) -> float:
        value = read(text)
        if not fits(key, value):
            raise ValueError
        return value

    return _Form(words or expected(key), checked)


def _age(text: str) -> float:
    if text[-1:] not in _UNITS:
        raise ValueError
    return _seconds(text[:-1]) * _UNITS[text[-1]]


def _whole(text: str) -> int:
    return int(_matching(_WHOLE)(text))


def _seconds(text: str) -> float:
    return float(_matching(_NUMBER)(text))


# None: App Engine knows it, but it asks for nothing here: who may upload or lease, how much storage is paid for.
_ABOVE_FORMS: dict[str, _Form | None] = {"application": None, "total_storage_limit": None, "resume_paused_queues": None}
_QUEUE_FORMS: dict[str, _Form | None] = {
    "name": _Form("1 to 100 of a-z A-Z 0-9 and -", _matching(_NAME)),
    "mode": _Form("push", _matching(re.compile("push"))),
    "rate": _Form(f'NUMBER/UNIT such as "5/s" (units s m h d), or 0; at most {MAX_RATE}/s', _rate),
    "bucket_size": _Form(f"a whole number from 1 to {MAX_RATE}", _count),
    "max_concurrent_requests": _Form(
        f"a whole number from 1 to {MAX_RATE}; left out, as many as the pool has children, less one", _count
    ),
    "acl": None,
}
_AGE = 'NUMBER and UNIT such as "2d" (units s m h d), more than 0 and at most 3650d'
_RETRY_FORMS: dict[str, _Form | None] = {
    "task_retry_limit": _retry_form("task_retry_limit", _whole),
    "task_age_limit": _retry_form("task_age_limit", _age, _AGE),
    "min_backoff_seconds": _retry_form("min_backoff_seconds", _seconds),
    "max_backoff_seconds": _retry_form("max_backoff_seconds", _seconds),
    "max_doublings": _retry_form("max_doublings", _whole),
}

# What a mapping holds under one key: where the key stands, and its value.
_Field = tuple[yaml.Node, yaml.Node]


class _Reader:
    """Walks the nodes of one file and gathers its queues and mistakes."""

    def __init__(self, file: str, targets: Collection[str] | None) -> None:
        self.queues: dict[str, PushQueue] = {}
        self.mistakes: list[tuple[int, str]] = []
        self._file = file
        self._forms = _QUEUE_FORMS | {"target": _target_form(targets)}
        self._lines: dict[str, int] = {}
        self._steps = 0

    def refusal(self) -> SettingsError:
        """All mistakes found, in the order of their lines."""
        lines = [f"{self._file}:{line}: {text}" for line, text in sorted(self.mistakes, key=lambda item: item[0])]
        if len(lines) == MAX_MISTAKES:
            lines.append(f"{self._file}: the rest was not looked at")
        return SettingsError("\n".join(lines))

    def read(self, root: yaml.Node) -> None:
        fields = self._fields(root, "", "queue: and a list of queues")
        _, queues = fields.pop("queue", (root, None))
        self._values(fields, _ABOVE_FORMS, "", besides="queue")
        if queues is None or queues.tag == _NULL:
            return
        if not isinstance(queues, yaml.SequenceNode):
            self._mistake(
                queues, f"queue{_shown(queues)}: expected a list, each item with a name, such as - name: mail"
            )
            return
        for number, node in enumerate(queues.value, 1):
            self._queue(node, f"queue number {number}: ")

    def _queue(self, node: yaml.Node, place: str) -> None:
        before = len(self.mistakes)
        fields = self._fields(node, place, "a mapping with a name, such as - name: mail")
        at, named = fields.get("name", (node, None))
        if isinstance(named, yaml.ScalarNode) and _NAME.fullmatch(named.value):
            place = f'queue "{named.value}": '
            if named.value in self._lines:
                self._mistake(at, f"{place}is there twice, the first time in line {self._lines[named.value]}")
            self._lines.setdefault(named.value, _line(at))
        elif named is None and len(self.mistakes) == before:
            self._mistake(node, f"{place}missing key name")
        _, mode = fields.get("mode", (node, None))
        if mode is not None and mode.value == "pull":
            self._mistake(mode, f'{place}mode = "pull": glassq has push queues only')
            return
        retry = self._retry(fields.pop("retry_parameters", None), place)
        values = self._values(fields, self._forms, place, besides="retry_parameters")
        values.pop("mode", None)
        if len(self.mistakes) == before:
            self.queues[values["name"]] = PushQueue(retry=retry, **values)

    def _retry(self, field: _Field | None, place: str) -> RetryParameters:
        if field is None or field[1].tag == _NULL:
            return RetryParameters()
        at, node = field
        place += "retry_parameters: "
        values = self._values(self._fields(node, place, "a mapping, such as task_retry_limit: 7"), _RETRY_FORMS, place)
        try:
            return RetryParameters.of(**values)
        except ValueError as error:
            self._mistake(at, f"{place}{error}")
            return RetryParameters()

    def _values(
        self, fields: Mapping[str, _Field], forms: Mapping[str, _Form | None], place: str, besides: str = ""
    ) -> dict[str, Any]:
        """What the keys mean; `besides` is a key that is known too, and read elsewhere."""
        values: dict[str, Any] = {}
        for key, (at, node) in fields.items():
            if key not in forms:
                known = [*(name for name, form in forms.items() if form), *filter(None, [besides])]
                close = difflib.get_close_matches(key[:MAX_SHOWN], known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"expected one of: {', '.join(known)}"
                self._mistake(at, f"{place}unknown key {_quoted(key)[1:-1]}; {hint}")
            elif form := forms[key]:
                try:
                    values[key] = form.read(node.value if isinstance(node, yaml.ScalarNode) else "")
                except ValueError:
                    self._mistake(node, f"{place}{key}{_shown(node)}: expected {form.expected}")
            else:
                log.debug("%s:%d: %s means nothing to glassq and is ignored", self._file, _line(at), key)
        return values

    def _fields(self, node: yaml.Node, place: str, what: str) -> dict[str, _Field]:
        """The keys of a mapping, its own before those that it merges in."""
        fields: dict[str, _Field] = {}
        if not isinstance(node, yaml.MappingNode):
            self._mistake(node, f"{place}expected {what}")
            return fields
        for mapping in self._mappings(node, place):
            own = set()
            for key, value in mapping.value:
                self._step()
                name = key.value if isinstance(key, yaml.ScalarNode) else None
                if name is None:
                    self._mistake(key, f"{place}a key is {_KINDS[type(key)]}: expected a word")
                elif name in own:
                    self._mistake(key, f"{place}{_quoted(name)[1:-1]} is there twice")
                elif key.tag != _MERGE:
                    own.add(name)
                    fields.setdefault(name, (key, value))
        return fields

    def _mappings(self, node: yaml.MappingNode, place: str) -> Iterator[yaml.MappingNode]:
        """The mapping and those that it merges in (<<), the nearest first; each once, for one may merge itself."""
        waiting, seen = [node], set()
        while waiting:
            mapping = waiting.pop()
            if id(mapping) in seen:
                continue
            seen.add(id(mapping))
            yield mapping
            waiting += reversed(list(self._merged(mapping, place)))

    def _merged(self, mapping: yaml.MappingNode, place: str) -> Iterator[yaml.MappingNode]:
        for key, value in mapping.value:
            if key.tag != _MERGE:
                continue
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                self._step()
                if isinstance(part, yaml.MappingNode):
                    yield part
                else:
                    self._mistake(part, f"{place}<<{_shown(part)}: expected a mapping, or a list of mappings")

    def _mistake(self, node: yaml.Node, text: str) -> None:
        self.mistakes.append((_line(node), text))
        if len(self.mistakes) == MAX_MISTAKES:
            raise self.refusal()

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise SettingsError(
                f"{self._file}: unfolds to more than {MAX_STEPS} keys and values: expected fewer aliases"
            )


def _target_form(targets: Collection[str] | None) -> _Form:
    def read(text: str) -> str:
        if not text or (targets is not None and text not in targets):
            raise ValueError
        return text

    known = ", ".join(sorted(targets or ())) or "(there is none)"
    return _Form("a name of [push.targets]" if targets is None else f"one of [push.targets]: {known}", read)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _quoted(text: str) -> str:
    # JSON's escapes keep whatever the value is on its line
    return json.dumps(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...")


def _shown(node: yaml.Node) -> str:
    kind = _KINDS.get(type(node))
    return f" is {kind}" if kind else f" = {_quoted(node.value)}"
