"""The forms that a value in a YAML file of App Engine can have, decided on its text alone."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from glassq.log import logger
from glassq.push.rule import RetryParameters, expected, fits
from glassq.push.yaml_nodes import MAX_SHOWN, FieldReader, Mistakes, is_null, line_of, quoted, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from glassq.push.yaml_nodes import KeyAndValue

log = logger("glassq.push")


@dataclass(frozen=True, slots=True)
class Form:
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


ANY = re.compile(r"(?s).*")
WHOLE = re.compile(r"0|[1-9][0-9]{0,14}")
_NUMBER = re.compile(r"(?:(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{0,15})?|\.[0-9]{1,15})(?:[eE][-+]?[0-9]{1,2})?")
_AGE = re.compile(rf"(?:{_NUMBER.pattern})[smhd]")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EXPECTED_AGE = 'NUMBER and UNIT such as "2d" (units s m h d), more than 0 and at most 3650d'


def target_form(targets: Collection[str] | None) -> Form:
    """The form of a target's name; `targets` are those of [push.targets], None: any."""
    if targets is None:
        return Form("a name of [push.targets]", ANY, allowed=bool)
    known = ", ".join(sorted(targets)) or "(there is none)"
    return Form(f"one of [push.targets]: {known}", ANY, allowed=lambda name: name in targets)


def retry_forms(prefix: str) -> dict[str, Form | None]:
    """The forms of retry_parameters. `prefix` is how the limits' names begin: "task" or "job"."""
    return {
        f"{prefix}_retry_limit": _retry_form("task_retry_limit", WHOLE, int),
        f"{prefix}_age_limit": _retry_form("task_age_limit", _AGE, _age, _EXPECTED_AGE),
        "min_backoff_seconds": _retry_form("min_backoff_seconds", _NUMBER, float),
        "max_backoff_seconds": _retry_form("max_backoff_seconds", _NUMBER, float),
        "max_doublings": _retry_form("max_doublings", WHOLE, int),
    }


def _retry_form(key: str, pattern: re.Pattern[str], convert: Callable[[str], float], words: str = "") -> Form:
    return Form(words or expected(key), pattern, convert, lambda value: fits(key, value))


def _age(text: str) -> float:
    return float(text[:-1]) * _UNITS[text[-1]]


class FormReader:
    """Reads mappings whose values have forms, and collects the mistakes of one file.

    A form None is that of a key that App Engine knows and that means nothing here.
    """

    def __init__(self, file: str) -> None:
        self.mistakes = Mistakes(file)
        self.fields = FieldReader(self.mistakes)

    def values(
        self, fields: Mapping[str, KeyAndValue], forms: Mapping[str, Form | None], place: str, besides: str = ""
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

    def retry(
        self, field: KeyAndValue | None, place: str, forms: Mapping[str, Form | None], prefix: str
    ) -> RetryParameters | None:
        """The retry_parameters of `field`, whose limits' names begin with `prefix`; None where there are none."""
        if field is None or is_null(field[1]):
            return None
        key, node = field
        place += "retry_parameters: "
        fields = self.fields.read(node, place, f"a mapping, such as {prefix}_retry_limit: 7")
        values = self.values(fields, forms, place)
        try:
            return RetryParameters.of(**{name.replace(f"{prefix}_", "task_", 1): values[name] for name in values})
        except ValueError as error:
            self.mistakes.add(key, f"{place}{error}")
            return None
