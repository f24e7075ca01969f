import io
import struct

import pytest
from PIL import Image

from glassq.dev.simulator import media

# Boxes that hold boxes.
CONTAINERS = {"moov", "trak", "mdia", "minf", "dinf", "stbl"}


def boxes(data, base=0, path=""):
    """Every box of an ISO base media file by its path: (offset of its body in the file, body)."""
    found, at = {}, 0
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        assert 8 <= length <= len(data) - at, f"box {path}/{name} reaches over its end"
        where = f"{path}/{name.decode()}"
        assert where not in found, f"{where} is there twice"
        body = data[at + 8 : at + length]
        found[where] = (base + at + 8, body)
        if name.decode() in CONTAINERS:
            found |= boxes(body, base + at + 8, where)
        at += length
    return found


def table(body):
    """The 32-bit numbers of a full box, after version and flags."""
    return list(struct.unpack(f">{(len(body) - 4) // 4}I", body[4:]))


@pytest.mark.parametrize(("kind", "form"), [("jpeg", "JPEG"), ("png", "PNG")])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_picture_is_one_that_pillow_opens(kind, form, number):
    made = media.make(kind, number)
    with Image.open(io.BytesIO(made.data)) as picture:
        picture.load()
        assert picture.format == form
        assert Image.MIME[form] == made.content_type
        # A gradient with a number on it, not a plain surface.
        assert len(set(picture.convert("L").resize((64, 36)).tobytes())) > 16


def test_the_mark_of_a_picture_is_a_comment():
    with Image.open(io.BytesIO(media.make("jpeg", 7).data)) as picture:
        assert picture.info["comment"] == b"glassq 7"
    with Image.open(io.BytesIO(media.make("png", 7).data)) as picture:
        picture.load()
        assert picture.text == {"Comment": "glassq 7"}


@pytest.mark.parametrize("kind", media.KINDS)
def test_each_number_makes_other_bytes_and_always_the_same_ones(kind):
    made = [media.make(kind, number).data for number in range(1, 9)]
    assert len(set(made)) == 8
    assert media.make(kind, 3).data == made[2]


def test_a_films_boxes_are_all_there_and_cut_out_its_pictures():
    data = media.make("mp4", 5).data
    found = boxes(data)
    samples = "/moov/trak/mdia/minf/stbl"
    assert found["/ftyp"][1].startswith(b"isom")
    assert found["/moov/trak/mdia/hdlr"][1][8:12] == b"vide"
    assert found["/free"][1] == b"glassq 5"
    _, count, *sizes = table(found[f"{samples}/stsz"][1])
    chunks, *offsets = table(found[f"{samples}/stco"][1])
    assert count == chunks == len(sizes) == len(offsets) > 1
    for start, size in zip(offsets, sizes, strict=True):
        with Image.open(io.BytesIO(data[start : start + size])) as picture:
            picture.load()
            assert picture.format == "JPEG"


def test_a_streams_content_is_an_address():
    made = media.make("stream", 5)
    assert made.content_type == "video/vnd.google-glass.stream-url"
    assert made.data.startswith(b"https://")
