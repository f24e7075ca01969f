"""What the tests of deferred calls defer: [push] deferred names this module."""

from __future__ import annotations

import functools
import time
from os import system
from typing import TYPE_CHECKING, Any

from glassq import Drop, deferred
from tests.ports import free_port as imported

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["imported", "system"]


def told(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"args": list(args), "kwargs": kwargs}


def resize(photo: str, width: int = 640) -> str:
    return f"{photo} at {width}"


def _private() -> str:
    return "private"


def fails(how: str, *words: str) -> None:
    raise {
        "for ever": deferred.PermanentTaskFailure,
        "once": deferred.SingularTaskFailure,
        "drop": Drop,
        "else": ValueError,
    }[how](*words)


def sleeps() -> None:
    time.sleep(60)


async def later() -> None: ...


async def pieces_later() -> AsyncIterator[int]:
    yield 1


def pieces() -> Iterator[int]:
    yield 1


def with_wraps(function: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(function)
    def work(*args: Any, **kwargs: Any) -> str:
        return function(*args, **kwargs) + "!"

    return work


def without_wraps(function: Callable[..., str]) -> Callable[..., str]:
    def work(*args: Any) -> str:
        return function(*args)

    return work


@with_wraps
def decorated(word: str) -> str:
    return word


@without_wraps
def bare(word: str) -> str:
    return word


def __getattr__(name: str) -> Any:
    if name == "made_up":
        return system
    raise AttributeError(name)


class Class:
    def __call__(self) -> None: ...

    def method(self) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    @staticmethod
    def static() -> None: ...


def nested() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


instance = Class()
alias = resize
anonymous = lambda: None  # noqa: E731
partly = functools.partial(resize, "a")
replaced = resize
text = "no function"
