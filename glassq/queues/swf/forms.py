"""A form of a delivery as text: a line of JSON says what SWF must know of it, and the rest is its body.

It is the input of an execution and of an activity, the details of an activity that failed, and the input of a signal.
Each of these has at most 32,768 characters.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from glassq.queues.aws.text import bytes_of, text_of
from glassq.queues.base import WaitingState  # noqa: TC001 - msgspec reads it
from glassq.queues.limits import JobLimits
from glassq.values import Tube

# The largest job, in bytes: as base64, with the line before it, it fits into MAX_TEXT characters.
MAX_TEXT, MAX_JOB = 32_768, 24_000
_DAY = 86_400
# The longest delay, lease and pause, in seconds: an execution ends after a year, whatever it waits for.
MAX_SECONDS = 180 * _DAY
LIMITS = JobLimits(MAX_JOB, MAX_SECONDS)
# No number of ours is larger: whoever may start executions in the domain may write anything. A lease is what the
# settings say.
_MOST, _LONGEST_LEASE = 1 << 40, 999_999_999


class SwfForm(msgspec.Struct, frozen=True, omit_defaults=True):
    """A form of a delivery. `delay` counts from where the form is, `lease` is each attempt's; in seconds.

    `losses` and `kicked` are as in Reservation. `put_at`, in seconds since 1970, is when the delivery was put (0: when
    its run began). `seen`, of a signal, is the number of the form that it takes the place of. `text` is the body's.
    """

    tube: str
    state: WaitingState = "ready"
    delay: Annotated[float, Meta(ge=0, le=MAX_SECONDS)] = 0.0
    lease: Annotated[int, Meta(ge=1, le=_LONGEST_LEASE)] = 60
    losses: Annotated[int, Meta(ge=0, le=_MOST)] = 0
    kicked: bool = False
    put_at: Annotated[float, Meta(ge=0, le=_MOST)] = 0.0
    seen: Annotated[int, Meta(ge=0, le=_MOST)] = 0
    text: str = ""

    @property
    def body(self) -> bytes:
        """The delivery's bytes."""
        return bytes_of(self.text)


def form_of(body: bytes, tube: str, *, lease: int, state: WaitingState = "ready", delay: float = 0.0) -> SwfForm:
    """The form of a delivery with this body."""
    waits = delay if state == "delayed" else 0.0
    return SwfForm(tube, state if state != "delayed" or waits else "ready", waits, lease, text=text_of(body))


def written(form: SwfForm) -> str:
    """The form as text."""
    # msgspec writes no subclass of a text, which a tube's name may be
    head = msgspec.json.encode(msgspec.structs.replace(form, tube=str(form.tube), text="")).decode()
    return f"{head}\n{form.text}"


def read_form(text: str, tube: str) -> SwfForm:
    """The form that is written so. What nobody of ours wrote is buried in `tube`: it waits for an operator."""
    head, line, rest = text.partition("\n")
    try:
        form = msgspec.json.decode(head, type=SwfForm)
        Tube(form.tube)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return SwfForm(tube, "buried", text=text)
    return msgspec.structs.replace(form, text=rest) if line else SwfForm(tube, "buried", text=text)


def fitting(form: SwfForm) -> SwfForm:
    """The form, so that it fits into MAX_TEXT: of what nobody of ours wrote the text may be too long, and is cut."""
    over = len(written(form)) - MAX_TEXT
    return msgspec.structs.replace(form, text=form.text[:-over]) if over > 0 else form
