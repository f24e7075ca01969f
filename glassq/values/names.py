"""Names of tubes, modules, handlers, labels and files."""

from __future__ import annotations

import re
import shlex
from typing import Any, Self

from glassq.values.urls import is_plain, split

_TUBE = re.compile(r"[A-Za-z0-9+/;.$_()][A-Za-z0-9\-+/;.$_()]{0,199}")
_HANDLER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_EXEC = "exec:"
# What a shell would act on, where it stands alone and without quotes.
_SHELL = re.compile(r"\|\|?|&&?|;|[0-9&]?>>?(?:&[0-9]|\S*)?|<\S*")
_EXPECTED_PROGRAM = (
    'expected "exec:/PATH ARGUMENTS", or "exec:./PATH ARGUMENTS" for a program beside glassq.toml; '
    "quotes are those of a shell"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_STEP_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_EXPECTED_STEP_NAME = 'expected a name of 1 to 100 characters: { name = "NAME", handler = "HANDLER" }'
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_LABEL_KEY = re.compile(r"label\.[a-z][a-z0-9_]{0,31}")


class Tube(str):
    """A tube's name, as beanstalkd's protocol has it (section "Definitions")."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not isinstance(text, str) or not _TUBE.fullmatch(text):
            raise ValueError("expected a tube name: 1 to 200 of A-Z a-z 0-9 + / ; . $ _ ( ) and -, not - first")
        return super().__new__(cls, text)


class ModuleName(str):
    """A module's full name: "app.tasks"."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        # __main__ is a different module in each program
        if not isinstance(text, str) or not _MODULE.fullmatch(text) or text == "__main__":
            raise ValueError('expected the full name of a module, such as "app.tasks"')
        return super().__new__(cls, text)


class LabelKey(str):
    """What the deliveries of a route are told apart by: "label.NAME", such as "label.user"."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not isinstance(text, str) or not _LABEL_KEY.fullmatch(text):
            raise ValueError('expected "label.NAME", such as "label.user"')
        return super().__new__(cls, text)

    @property
    def label(self) -> str:
        """The name of the label."""
        return self.partition(".")[2]


class HandlerName(str):
    """A handler: "package.module:function", "exec:" and a program's command line, or the URL of an HTTP endpoint."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        expected = 'expected "package.module:function", "exec:/path/of/a/program" or "http://HOST:PORT/PATH"'
        if isinstance(text, str) and text.startswith(_EXEC):
            _command(text)
        elif not isinstance(text, str) or not _HANDLER.fullmatch(text):
            parts = split(text, expected)
            if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain(text):
                raise ValueError(expected)
        return super().__new__(cls, text)

    @property
    def is_url(self) -> bool:
        """Whether it is an HTTP endpoint."""
        return "://" in self and not self.is_program

    @property
    def is_program(self) -> bool:
        """Whether it is a program."""
        return self.startswith(_EXEC)

    @property
    def module(self) -> str:
        """The module of a function; "" for a program and a URL."""
        return "" if self.is_program or self.is_url else self.partition(":")[0]

    @property
    def command(self) -> list[str]:
        """The program and its arguments."""
        return _command(self)


class Step(HandlerName):
    """One handler of several: a handler's text, or { name = "NAME", handler = "HANDLER" }. Without a name, its text."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, value: object) -> Self:
        given: dict[str, Any] = value if isinstance(value, dict) else {"handler": value}
        if not given.keys() <= {"name", "handler"} or "handler" not in given:
            raise ValueError('expected a handler, or { name = "NAME", handler = "HANDLER" }')
        step = super().__new__(cls, given["handler"])
        step.name = given.get("name", str(step))
        if not isinstance(step.name, str) or not _STEP_NAME.fullmatch(step.name):
            raise ValueError(_EXPECTED_STEP_NAME)
        return step


def _command(text: str) -> list[str]:
    """The words behind "exec:", as shlex splits them: a program by its path, and its arguments."""
    try:
        words = shlex.split(text.removeprefix(_EXEC))
    except ValueError as error:
        raise ValueError(f"{_EXPECTED_PROGRAM}: {error}") from None
    if operator := next(filter(_SHELL.fullmatch, _unquoted(text.removeprefix(_EXEC))), None):
        raise ValueError(
            f"no shell runs a program, so {operator} would be an argument of it: put it in quotes if it shall be one, "
            "else have a shell run the line: exec:/bin/sh -c '...'"
        )
    if not words or "/" not in words[0] or words[0].endswith("/") or _CONTROL.search(text):
        raise ValueError(_EXPECTED_PROGRAM)
    return words


def _unquoted(text: str) -> list[str]:
    """The words of a command line with their quotes; none where they cannot be told apart so."""
    try:
        return shlex.split(text, posix=False)
    except ValueError:
        return []


class SecretFile(str):
    """A file that holds a secret. Its path may be printed, its content never.

    `copy` is where systemd puts this service's copy of it (LoadCredential=), if it does; "" outside of such a service.
    """

    __slots__ = ("copy",)
    copy: str

    def __new__(cls, path: str, copy: str = "") -> Self:
        file = super().__new__(cls, path)
        file.copy = copy
        return file
