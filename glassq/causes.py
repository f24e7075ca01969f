"""The cause of a failure: what two hundred failed deliveries have in common.

A cause is where the delivery came from (its source, or its push queue), the error's type, its message without what
differs from delivery to delivery, and the function that raised it. Twelve hex digits of a hash name it, so it has the
same name after a restart and on every host.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.mask import masked_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.delivery import Delivery

# Of a message, in characters: behind that, it is mostly what a stranger sent.
MAX_WORDS = 200
# Shorter, a name in a body may be a part of any sentence.
MIN_NAME = 3
_NAMING = re.compile(r"(?i:user|token|name|login|email|key)$|(?:Id|ID|_id|^id)$")
_ID_DIGITS = 12
_ID = re.compile(rf"[0-9a-f]{{{_ID_DIGITS}}}")
_FRAME = re.compile(r'^ *File "([^"\n]+)", line \d+, in (\S+)', re.MULTILINE)
_SEPARATOR = re.compile(r"[/\\]")
_GAVE_UP = re.compile(r" \(gave up after \d+ attempts?\)$")

# Release 0.1.0 put this before the reason of a delivery whose budget was spent.
_COUNT_FIRST = re.compile(r"(gave up after \d+ attempts?): (.*)", re.DOTALL)

# What differs between two failures of one cause. The first alternative that fits decides; a group with a name keeps
# what it holds.
_FOLDED = re.compile(
    r"""
    (?P<url>\bhttps?://[^\s/?\#"'<>]+) [^\s"'<>]*                    # the host of a URL stays
  | (?P<number>\b(?:http(?:error|/\d\.\d)?|status(?:\ code)?|code|errno|exit|answered|returned|error)
        [\s:=(]{0,3} \d{1,3}\b) (?![.\d-])                           # an HTTP status, an errno, an exit code
  | ^(?P<status>[45]\d\d\b) (?![.\d-])                               # "503 Service Unavailable"
  | (?P<user>\b(?:user|account|login)(?:name|token|id)? \s*[=:]\s*) [^\s,;:)]+
  | (?P<whose>\b(?:for|of|by|from|to)\ (?:user|account|login)\ ) [^\s,;:)]+
  | (?<!\w) (?: "[^"\n]*" | '[^'\n]*' | `[^`\n]*` ) (?!\w)           # quoted words
  | [\w.+-]+@[\w-]+(?:\.[\w-]+)+                                     # an address
  | (?P<path>(?<![\w.])(?:/[\w.+-]+){2}) (?:/[\w.+-]+)+ /?           # the beginning of a long path
  | \b[\w.:+-]*\d[\w:+-]*(?:\.\d[\w:+-]*)*                           # ids, hex, numbers, times
  | \b[a-f]{8,}\b                                                    # hex without a digit
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a delivery failed: `origin` is its source or push queue, `frame` the function that raised the error."""

    origin: str
    error: str
    message: str
    frame: str

    @property
    def id(self) -> str:
        """Twelve hex digits that name it."""
        text = "\0".join((self.origin, self.error, self.message, self.frame))
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:_ID_DIGITS]

    @property
    def words(self) -> str:
        """The error's type, its folded message, and where it was raised."""
        what = ": ".join(part for part in (self.error, self.message) if part)
        return f"{what} in {self.frame}" if self.frame else what


def reason(text: str) -> str:
    """A reason as people read it: masked, and what failed first, however old the delivery is."""
    counted = _COUNT_FIRST.fullmatch(text)
    return masked_text(f"{counted[2]} ({counted[1]})" if counted else text)


def fold(message: str, names: Iterable[str] = ()) -> str:
    """The message without what differs from delivery to delivery: ids, numbers, quoted words, ends of URLs, users.

    `names` are what the delivery itself calls its user and its item, and are left out too.
    """
    for name in names:
        message = _without(message, name)
    text = " ".join(_FOLDED.sub(_folded, message).split())
    return text[:MAX_WORDS].rstrip()


def _without(text: str, name: str) -> str:
    """The text with "…" for the name, where it is a word of its own. A pattern for each name would take far longer."""
    pieces: list[str] = []
    kept, at = 0, text.find(name)
    while at >= 0:
        end = at + len(name)
        alone = not (_in_word(text[at - 1 : at]) or _in_word(text[end : end + 1]))
        if alone:
            pieces += (text[kept:at], "…")
            kept = end
        at = text.find(name, end if alone else at + 1)
    return "".join((*pieces, text[kept:]))


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _folded(found: re.Match[str]) -> str:
    kept: str = found[found.lastgroup] if found.lastgroup else ""
    match found.lastgroup:
        case "url" | "path":
            return f"{kept}/…" if found[0] != kept else kept
        case "number" | "status":
            return kept
        case "user" | "whose":
            return f"{kept}…"
    return "…"


def own_names(delivery: Delivery) -> list[str]:
    """What the delivery's body calls its user, its item and the like: values of keys such as userToken and itemId."""
    if not delivery.body.startswith(b"{"):
        return []
    try:
        body = msgspec.json.decode(delivery.body, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return []
    names = (value for key, value in body.items() if _NAMING.search(key) and isinstance(value, str))
    return sorted({name for name in names if len(name) >= MIN_NAME}, key=len, reverse=True)


def last_frame(traceback: str) -> str:
    """File and function of the traceback's last frame, as "photos.py:store"; "" where it has none.

    The directory is left out: it differs between hosts. The line is left out: it differs between releases.
    """
    frames = _FRAME.findall(traceback)
    if not frames:
        return ""
    file, function = frames[-1]
    return f"{_SEPARATOR.split(file)[-1]}:{function}"


def cause_of(delivery: Delivery | None, damage: str = "") -> Cause:
    """The cause of a delivery's last failure; `damage` says why there is no delivery."""
    if delivery is None:
        return Cause("", "damaged", fold(damage), "")
    origin = f"queue {delivery.labels.get('queue', '')}" if delivery.source == "push" else delivery.source
    if not delivery.evidence:
        return Cause(origin, "", fold(_GAVE_UP.sub("", reason(delivery.buried)), own_names(delivery)), "")
    last = delivery.evidence[-1]
    # what overran or was lost ends anywhere: its last frame tells nothing
    frame = last_frame(last.traceback) if last.outcome != "lost" and last.error != "DeadlineExceeded" else ""
    message = fold(reason(last.message), own_names(delivery))
    # the type stands before the message already, unless a handler said why in words
    return Cause(origin, last.error, message.removeprefix(f"{last.error}: "), frame)


def is_cause_id(text: str) -> bool:
    """Whether it can be a cause's id."""
    return bool(_ID.fullmatch(text))
