"""Documents that are already here, for schemes as pure functions; `test_fetched_keys.py` is about how they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from glassq.errors import SourceUnready

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Published:
    """What lies at which URL. Any other URL is not here yet."""

    def __init__(self, documents: dict[str, bytes] | None = None) -> None:
        self.documents = documents or {}
        #: each URL that was asked for
        self.asked: list[str] = []

    def get(self, url: str, read: Callable[[bytes], T], suits: Callable[[T], bool] = lambda _: True) -> T:
        self.asked.append(url)
        if url not in self.documents:
            raise SourceUnready("not here yet")
        return read(self.documents[url])
