"""The results of a delivery's steps: in its job, as far as they are small, else in the body store."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.bodies.base import INLINE
from glassq.bodies.stored import StoredDelivery, check
from glassq.delivery import Delivery, StepResult, as_valid_utf8, result_key
from glassq.errors import BodyDamaged, BodyLost, Bury
from glassq.excerpts import MAX_MESSAGE, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.bodies.base import BodyStore
    from glassq.delivery import Form, StoredBody

# How much all results of a delivery may take of its job, in bytes of JSON; with a body of more than INLINE: nothing.
MAX_INLINE = 8 << 10
# The Content-Type of each form of a result.
_TYPES = {"text": "text/plain; charset=utf-8", "json": "application/json", "bytes": "application/octet-stream"}


class StepResults(Mapping[str, Any]):
    """The results by the name of the step, each as it was returned. One in the body store is read when it is asked for.

    `done` are those that the delivery carries on. Without a store, all are in the job.
    """

    def __init__(self, delivery: Delivery, bodies: BodyStore | None) -> None:
        self._delivery = delivery
        self._bodies = bodies
        self._by_name = {result.step: result for result in delivery.done}

    @property
    def done(self) -> tuple[StepResult, ...]:
        return tuple(self._by_name.values())

    def __getitem__(self, step: str) -> str | bytes | dict[str, Any] | None:
        """Raises BodyError if it is in the store and cannot be read."""
        result = self._by_name[step]
        if not result.form:
            return None
        data = self._data(result)
        if result.form == "bytes":
            return data
        value: str | dict[str, Any] = msgspec.json.decode(data) if result.form == "json" else data.decode()
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def drop_lost(self) -> None:
        """Forgets results that are not in the store any more, or were changed: their steps run again.

        Raises BodyError if the store cannot be read now.
        """
        for result in self.done:
            if result.stored is not None and self._bodies is not None:
                try:
                    check(self._bodies, result_key(self._delivery.id, result.step), result.stored)
                except (BodyLost, BodyDamaged):
                    del self._by_name[result.step]

    def keep(self, step: str, value: object) -> None:
        """Keeps what the step has returned: durably, if it is large.

        Raises Bury for what is no text, bytes or JSON, and BodyError if the store takes nothing now.
        """
        form, data = _encoded(step, value)
        text = b64encode(data).decode() if form == "bytes" else data.decode()
        if self._bodies is None or self._fits(text):
            self._by_name[step] = StepResult(step, form, text)
        else:
            self._by_name[step] = StepResult(step, form, stored=_store(self._bodies, self._delivery.id, step, data))

    def given_to(self, delivery: Delivery, step: str) -> Delivery:
        """The delivery with the result of this step as its body; unchanged if that has none."""
        result = self._by_name.get(step)
        if result is None or not result.form:
            return delivery
        changes = {name: getattr(delivery, name) for name in Delivery.__struct_fields__ if name != "body"}
        changes["content_type"] = _TYPES[result.form]
        if result.stored is not None and self._bodies is not None:
            changes["stored"] = result.stored
            key = result_key(delivery.id, step)
            return StoredDelivery(**changes, body=b"", bodies=self._bodies, key=key)
        return Delivery(**changes | {"stored": None}, body=self._data(result))

    def _fits(self, text: str) -> bool:
        """Whether the delivery's job has room for it."""
        if self._delivery.stored is None and len(self._delivery.body) > INLINE:
            return False
        return len(msgspec.json.encode([text, *(result.text for result in self.done)])) <= MAX_INLINE

    def _data(self, result: StepResult) -> bytes:
        if result.stored is None or self._bodies is None:
            return b64decode(result.text) if result.form == "bytes" else result.text.encode()
        with self._bodies.open(result_key(self._delivery.id, result.step)) as file:
            return file.read()


def _store(bodies: BodyStore, delivery: str, step: str, data: bytes) -> StoredBody:
    writer = bodies.begin(result_key(delivery, step), len(data))
    try:
        writer.write(data)
        return writer.finish()
    finally:
        writer.discard()


def _encoded(step: str, value: object) -> tuple[Form, bytes]:
    """The form of a result, and its bytes."""
    if value is None:
        return "", b""
    if isinstance(value, str):
        return "text", as_valid_utf8(value).encode()
    if isinstance(value, bytes):
        try:
            value.decode()
        except UnicodeDecodeError:
            return "bytes", value
        return "text", value
    try:
        return "json", msgspec.json.encode(value)
    except Exception as error:
        why = words_of(error, MAX_MESSAGE)
        todo = "fix the handler, reload the pool, then kick this delivery"
        raise Bury(f"step {step} returned what is no text, bytes or JSON ({why}): {todo}") from None
