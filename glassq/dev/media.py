"""Pictures and films for the simulated Glass: real, small, and each one different.

The pictures are made with Pillow (the extra `glassq[demo]`). The film is Motion JPEG in an ISO base media file
(ISO/IEC 14496-12), whose boxes are written here.
"""

from __future__ import annotations

import io
import itertools
import random
import struct
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from glassq.errors import SettingsError

if TYPE_CHECKING:
    from PIL.Image import Image

Kind = Literal["jpeg", "png", "mp4", "stream"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# A quarter of what Glass' camera makes in each direction: an encoded picture is some 10 kB.
SIZE = (640, 360)
# A film is short and small: it has to be an MP4, nobody watches it for long. Frames, and frames per second.
FRAMES, FRAME_RATE = 5, 5
FILM_SIZE = (320, 180)


class Media(NamedTuple):
    """What an attachment holds."""

    content_type: str
    data: bytes


def make(kind: Kind, number: int) -> Media:
    """A picture or film showing `number`; the same number makes the same bytes, another one other bytes.

    Raises SettingsError where Pillow is missing.
    """
    match kind:
        case "jpeg":
            return Media("image/jpeg", _encoded(_picture(number, str(number), SIZE), "JPEG"))
        case "png":
            return Media("image/png", _encoded(_picture(number, str(number), SIZE), "PNG"))
        case "mp4":
            pictures = [_picture(number, f"{number}.{frame}", FILM_SIZE) for frame in range(FRAMES)]
            return Media("video/mp4", film([_encoded(picture, "JPEG") for picture in pictures], FILM_SIZE))
        case "stream":
            # What Glass sends for a live stream: the body is the stream's address.
            return Media("video/vnd.google-glass.stream-url", b"https://stream.example/live/%d" % number)


def _picture(number: int, text: str, size: tuple[int, int]) -> Image:
    """A gradient between two colours that the number decides, with the text in the middle."""
    image, draw, font, ops = _pillow()
    chance = random.Random(number)
    hue = chance.randrange(360)
    dark, light = f"hsl({hue}, 70%, 22%)", f"hsl({(hue + chance.randrange(30, 120)) % 360}, 75%, 68%)"
    ramp = image.linear_gradient("L").rotate(chance.randrange(360), fillcolor=128)
    # The middle of a turned square has no corners of the fill colour.
    picture: Image = ops.colorize(ramp.crop((38, 38, 218, 218)).resize(size), dark, light)
    middle = (size[0] / 2, size[1] / 2)
    draw.Draw(picture).text(middle, text, fill="white", font=font.load_default(size=size[1] / 3), anchor="mm")
    return picture


def _pillow() -> tuple[Any, Any, Any, Any]:
    # Imported when first needed: only who shares pictures has to have it.
    try:
        from PIL import Image, ImageDraw, ImageFont, ImageOps
    except ImportError as error:
        raise SettingsError(
            'Pillow is missing: expected for the simulated Glass\' pictures; pip install "glassq[demo]"'
        ) from error
    return Image, ImageDraw, ImageFont, ImageOps


def _encoded(picture: Image, form: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **({"quality": 80} if form == "JPEG" else {"compress_level": 6}))
    return out.getvalue()


def film(frames: list[bytes], size: tuple[int, int]) -> bytes:
    """An MP4 of JPEG pictures, all of `size` (width, height in pixels), one after the other at FRAME_RATE."""
    head = _box("ftyp", b"isom", _u32(0x200), b"isomiso2mp41")
    # The offsets depend on the length of moov, and that doesn't depend on their values.
    start = len(head) + len(_moov(frames, size, 0)) + 8
    return head + _moov(frames, size, start) + _box("mdat", *frames)


def _moov(frames: list[bytes], size: tuple[int, int], start: int) -> bytes:
    length = len(frames)
    movie = _box(
        "mvhd", _u32(0, 0, 0, FRAME_RATE, length, 0x10000), _u16(0x100, 0), _u32(0, 0), _MATRIX, _u32(*[0] * 6, 2)
    )
    # Flags 3: enabled, and in the movie.
    track = _box(
        "tkhd", _u32(3, 0, 0, 1, 0, length, 0, 0), _u16(0, 0, 0, 0), _MATRIX, _u32(size[0] << 16, size[1] << 16)
    )
    # 0x55C4 is the language "und", five bits a letter.
    header = _box("mdhd", _u32(0, 0, 0, FRAME_RATE, length), _u16(0x55C4, 0))
    handler = _box("hdlr", _u32(0, 0), b"vide", _u32(0, 0, 0), b"glassq\0")
    # Flags 1: the media is in this very file.
    where = _box("dinf", _box("dref", _u32(0, 1), _box("url ", _u32(1))))
    info = _box("minf", _box("vmhd", _u32(1), _u16(0, 0, 0, 0)), where, _samples(frames, size, start))
    return _box("moov", movie, _box("trak", track, _box("mdia", header, handler, info)))


def _samples(frames: list[bytes], size: tuple[int, int], start: int) -> bytes:
    """The sample table: one sample a chunk, so that each picture's offset is written down."""
    sizes = [len(frame) for frame in frames]
    offsets = list(itertools.accumulate(sizes[:-1], initial=start))
    return _box(
        "stbl",
        _box("stsd", _u32(0, 1), _sample_entry(size)),
        _box("stts", _u32(0, 1, len(frames), 1)),
        _box("stsc", _u32(0, 1, 1, 1, 1)),
        _box("stsz", _u32(0, 0, len(frames), *sizes)),
        _box("stco", _u32(0, len(frames), *offsets)),
    )


def _sample_entry(size: tuple[int, int]) -> bytes:
    # ISO/IEC 14496-1, 7.2.6: object type 0x6C is JPEG; 0x11 is stream type 4 (visual) with the reserved bit set.
    config = _descriptor(4, b"\x6c\x11" + bytes(3) + _u32(0, 0))
    stream = _descriptor(3, _u16(1) + b"\0" + config + _descriptor(6, b"\x02"))
    look = _u16(*size) + _u32(0x480000, 0x480000, 0) + _u16(1) + bytes(32) + _u16(24, 0xFFFF)
    return _box("mp4v", bytes(6), _u16(1), bytes(16), look, _box("esds", _u32(0), stream))


def _box(name: str, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name.encode()) + body


def _descriptor(tag: int, body: bytes) -> bytes:
    # One length byte: ours are all shorter than 128 bytes.
    return bytes([tag, len(body)]) + body


def _u16(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def _u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


# Not turned, not scaled: 16.16 fixed point, but 2.30 in the last column.
_MATRIX = _u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
