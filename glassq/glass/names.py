"""Names and content types of stored photos.

    ugi-<user>-<item>.<ext>               the first, or only, attachment of a timeline item
    ugi-<user>-<item>-<attachment>.<ext>  every other attachment

The name is the idempotency key: it is known before the download, and no two attachments share one. They differ because
each part has its own alphabet. The user part has no "-" or "." (both are percent-encoded), so it ends at the first "-".
An item id may have "-" but never "%". The attachment part always has a "%" and never a "-", so the text after the last
"-" is an attachment exactly if it has a "%".

If a name would be longer than MAX_NAME, its user and attachment parts are shortened to MAX_PART: their beginning, "%%"
and a hash of the whole part. Percent-encoding never produces "%%", so a shortened part equals no other part.
"""

from __future__ import annotations

import hashlib
import re

from glassq.errors import Bury

# Maximum length of a file name in common file systems, in bytes. Object stores allow more.
MAX_NAME = 255
# Maximum length of the user's and the attachment's part in a shortened name, in bytes: both fit beside the longest item
# id (128 bytes). It contains 128 bits of the hash, so a collision is practically impossible.
MAX_PART = 56
_HASH = 32
# Number of first bytes that identify every kind of content below.
HEAD = 32

_ITEM = re.compile(r"[A-Za-z0-9_-]{1,128}")
# Real ids look like "ps:5938166036004083986"; "." and ".." would be path segments in a URL.
_ATTACHMENT = re.compile(r"(?!\.{1,2}$)[\x21-\x7e]{1,256}")
_NAME = re.compile(
    r"ugi-(?P<user>[A-Za-z0-9_%]+)-(?P<item>[A-Za-z0-9_-]+?)(?:-(?P<attachment>[A-Za-z0-9_]*%[A-Za-z0-9_%]*))?\.[a-z0-9]+"
)
_PLAIN = re.compile(r"[\w.@+:-]{1,128}", re.ASCII)

# Content types that are stored under their own type, and their extensions.
_EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/gif": "gif",
    "image/webp": "webp",
    "video/mp4": "mp4",
    "audio/mpeg": "mp3",
    "audio/aac": "aac",
    "audio/wav": "wav",
}
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "audio/mp3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-aac": "audio/aac",
}
UNKNOWN = "application/octet-stream"
# Its body is the URL of a live stream, not media.
STREAM = "video/vnd.google-glass.stream-url"

# Major brands of ISO base media files that are not MP4 videos: still images, audio, QuickTime (ISO/IEC 14496-12).
_OTHER_BRANDS = {b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"M4A ", b"M4B ", b"qt  "}


def check_item(item: str) -> str:
    """The item id, if it is valid: 1 to 128 of A-Z a-z 0-9 _ and -. Raises Bury."""
    if not _ITEM.fullmatch(item):
        raise Bury(f"timeline item {shown(item)}: expected an id of 1 to 128 of A-Z a-z 0-9 _ -")
    return item


def check_attachment(attachment: object, item: str) -> str:
    """The attachment id, if it is valid: 1 to 256 printable ASCII characters, not "." or "..". Raises Bury."""
    if not isinstance(attachment, str) or not _ATTACHMENT.fullmatch(attachment):
        raise Bury(f"timeline item {item}: attachment {shown(str(attachment))}: expected an id in printable ASCII")
    return attachment


def object_name(user: str, item: str, attachment: str | None, content_type: str) -> str:
    """The name of an attachment's object; `attachment` is None for an item's first (or only) one.

    `content_type` is the declared one; it decides the extension. The name has at most MAX_NAME bytes. Raises Bury if an
    id is invalid.
    """
    if not user or attachment == "":
        raise Bury(f"timeline item {shown(item)}: an object name needs a user and an attachment that are not empty")
    who, what = _quote(user), "" if attachment is None else _quote_marked(attachment)
    name = _joined(who, check_item(item), what, extension(content_type))
    return name if len(name) <= MAX_NAME else _joined(_bounded(who), item, _bounded(what), extension(content_type))


def prefix(user: str, item: str) -> str:
    """The prefix of the names of an item's objects. Other items may share it: `belongs` decides."""
    who = _quote(user)
    # if the user's part is long, some names have it shortened and some do not
    return f"ugi-{who}-{item}" if len(who) <= MAX_PART else f"ugi-{_head(who)}"


def belongs(name: str, user: str, item: str) -> bool:
    """Whether `name` is an object of exactly this user's item (item "abc" does not own those of "abc-1")."""
    match = _NAME.fullmatch(name)
    who = _quote(user)
    return match is not None and match["user"] in (who, _bounded(who)) and match["item"] == item


def canonical(content_type: object) -> str:
    """A Content-Type without parameters, in lower case, by its usual name; "" if there is none."""
    text = content_type.partition(";")[0].strip().lower() if isinstance(content_type, str) else ""
    return _ALIASES.get(text, text)


def extension(content_type: str) -> str:
    """The extension for a declared content type; "bin" for a type that is not in the list."""
    return _EXTENSIONS.get(canonical(content_type), "bin")


def stored_type(declared: str, head: bytes) -> str:
    """The content type to store: the type that the first bytes (HEAD of them) show, if it is in the list.

    If they contradict the declared type, neither can be trusted: application/octet-stream. The object's name was made
    from the declared type before the first byte came, and stays.
    """
    declared, found = canonical(declared), sniff(head)
    return found if found and declared in (found, UNKNOWN, "") else UNKNOWN


def sniff(head: bytes) -> str | None:
    """The content type that the first bytes of a file show, or None (magic numbers as in the WHATWG MIME standard)."""
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _OTHER_BRANDS else "video/mp4"
    return _sniff_audio(head)


def _sniff_audio(head: bytes) -> str | None:
    if head.startswith(b"ID3"):
        return "audio/mpeg"
    if len(head) < 2 or head[0] != 0xFF:
        return None
    # A frame begins with 11 or 12 ones; the layer (0x06) is 0 in ADTS (AAC) and 1 in MP3 ("layer III"). Other layers
    # are not in use, and would match a UTF-16 byte order mark (FF FE).
    if head[1] & 0xF6 == 0xF0:
        return "audio/aac"
    return "audio/mpeg" if head[1] & 0xE6 == 0xE2 else None


def shown(text: str) -> str:
    """An id from outside in a form for operators: limited in length, and quoted if it has unusual characters."""
    if _PLAIN.fullmatch(text):
        return text
    return repr(text if len(text) <= 64 else f"{text[:64]}...")


def _joined(user: str, item: str, attachment: str, ending: str) -> str:
    return f"ugi-{user}-{item}{'-' if attachment else ''}{attachment}.{ending}"


def _bounded(part: str) -> str:
    """The quoted part, shortened to MAX_PART bytes if it is longer."""
    if len(part) <= MAX_PART:
        return part
    return f"{_head(part)}%%{hashlib.sha256(part.encode('ascii')).hexdigest()[:_HASH]}"


def _head(part: str) -> str:
    return part[: MAX_PART - _HASH - 2]


def _quote(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return re.sub(rb"[^A-Za-z0-9_]", lambda match: b"%%%02X" % match[0][0], data).decode("ascii")


def _quote_marked(text: str) -> str:
    """Quotes it so that there is at least one "%"."""
    quoted = _quote(text)
    return quoted if "%" in quoted else f"%{ord(quoted[0]):02X}{quoted[1:]}"
