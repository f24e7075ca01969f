"""Pictures and films for the simulated Glass: real ones from pictures/, each marked so that no two are the same.

The film is Motion JPEG in an ISO base media file (ISO/IEC 14496-12).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Literal, NamedTuple, get_args

Kind = Literal["jpeg", "png", "mp4", "stream"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PICTURES = Path(__file__).parent / "pictures"
# The end of every PNG: IEND, a chunk without content.
_IEND = b"\0\0\0\0IEND\xae\x42\x60\x82"


class Media(NamedTuple):
    """The content of an attachment."""

    content_type: str
    data: bytes


def make(kind: Kind, number: int) -> Media:
    """Makes a picture or film. The same number gives the same bytes, another number other bytes."""
    mark = b"glassq %d" % number
    match kind:
        case "jpeg":
            return Media("image/jpeg", _marked_jpeg(_picture(f"{number % 4 + 1}.jpg"), mark))
        case "png":
            return Media("image/png", _marked_png(_picture("5.png"), mark))
        case "mp4":
            return Media("video/mp4", _picture("6.mp4") + _box(b"free", mark))
        case "stream":
            # Glass's attachment for a live stream: the body is the stream's address.
            return Media("video/vnd.google-glass.stream-url", b"https://stream.example/live/%d" % number)


def _picture(name: str) -> bytes:
    return (PICTURES / name).read_bytes()


def _marked_jpeg(data: bytes, mark: bytes) -> bytes:
    """Inserts a comment (COM, ISO/IEC 10918-1) after the JFIF header, which must come first."""
    header = 4 + struct.unpack_from(">H", data, 4)[0]
    return data[:header] + b"\xff\xfe" + struct.pack(">H", 2 + len(mark)) + mark + data[header:]


def _marked_png(data: bytes, mark: bytes) -> bytes:
    """Inserts a textual chunk (RFC 2083, 4.2.3) before the last chunk."""
    body = b"tEXtComment\0" + mark
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data.removesuffix(_IEND) + chunk + _IEND


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body
