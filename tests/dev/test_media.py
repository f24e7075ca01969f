import io
import struct
import subprocess
import sys

import pytest
from PIL import Image

from glassq.dev import media

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


def table(body, skip=0):
    """The 32-bit numbers of a full box, after version, flags and `skip` bytes."""
    return list(struct.unpack(f">{(len(body) - 4 - skip) // 4}I", body[4 + skip :]))


@pytest.mark.parametrize(("kind", "form"), [("jpeg", "JPEG"), ("png", "PNG")])
def test_a_picture_is_one_that_pillow_opens_again(kind, form):
    made = media.make(kind, 7)
    with Image.open(io.BytesIO(made.data)) as picture:
        picture.load()
        assert (picture.format, picture.size) == (form, media.SIZE)
        assert Image.MIME[form] == made.content_type
        # A gradient with a number on it, not a plain surface.
        assert len(set(picture.convert("L").resize((64, 36)).tobytes())) > 16


@pytest.mark.parametrize("kind", media.KINDS)
def test_each_number_makes_other_bytes_and_always_the_same_ones(kind):
    made = [media.make(kind, number).data for number in range(1, 9)]
    assert len(set(made)) == 8
    assert media.make(kind, 3).data == made[2]


def test_a_films_boxes_are_all_there_and_end_where_the_file_ends():
    data = media.make("mp4", 5).data
    found = boxes(data)
    track = "/moov/trak/mdia/minf"
    needed = ["/ftyp", "/moov/mvhd", "/moov/trak/tkhd", "/moov/trak/mdia/mdhd", "/moov/trak/mdia/hdlr", f"{track}/vmhd"]
    needed += [f"{track}/dinf/dref"] + [f"{track}/stbl/{name}" for name in ("stsd", "stts", "stsc", "stsz", "stco")]
    assert not [name for name in [*needed, "/mdat"] if name not in found]
    lengths = {"/moov/mvhd": 100, "/moov/trak/tkhd": 84, "/moov/trak/mdia/mdhd": 24, f"{track}/vmhd": 12}
    assert {name: len(found[name][1]) for name in lengths} == lengths
    assert found["/ftyp"][1].startswith(b"isom")
    assert found["/moov/trak/mdia/hdlr"][1][8:12] == b"vide"


def test_a_films_offsets_and_sizes_cut_out_its_pictures():
    data = media.make("mp4", 5).data
    found = boxes(data)
    samples = "/moov/trak/mdia/minf/stbl"
    _, count, *sizes = table(found[f"{samples}/stsz"][1])
    chunks, *offsets = table(found[f"{samples}/stco"][1])
    assert count == chunks == len(sizes) == len(offsets) == media.FRAMES
    assert table(found[f"{samples}/stts"][1]) == [1, media.FRAMES, 1]
    assert table(found[f"{samples}/stsc"][1]) == [1, 1, 1, 1]
    frames = [data[start : start + size] for start, size in zip(offsets, sizes, strict=True)]
    for frame in frames:
        assert frame.startswith(b"\xff\xd8\xff")
        assert frame.endswith(b"\xff\xd9")
        with Image.open(io.BytesIO(frame)) as picture:
            picture.load()
            assert picture.size == media.FILM_SIZE
    start, body = found["/mdat"]
    assert b"".join(frames) == body == data[start:]


def test_a_films_sample_entry_says_jpeg_and_its_size():
    found = boxes(media.make("mp4", 5).data)
    entry = found["/moov/trak/mdia/minf/stbl/stsd"][1][8:]
    length, name = struct.unpack_from(">I4s", entry)
    assert (length, name) == (len(entry), b"mp4v")
    assert struct.unpack_from(">HH", entry, 32) == media.FILM_SIZE
    esds_length, esds = struct.unpack_from(">I4s", entry, 86)
    assert (86 + esds_length, esds) == (len(entry), b"esds")
    # Each descriptor (tag, length) ends exactly where its parent says: 3 holds 4 and 6.
    stream = entry[86 + 12 :]
    assert (stream[0], stream[1]) == (3, len(stream) - 2)
    config = stream[2 + 3 :]
    assert (config[0], config[1], config[2]) == (4, 13, 0x6C)
    assert config[2 + 13 :] == bytes([6, 1, 2])


def test_a_streams_content_is_an_address():
    made = media.make("stream", 5)
    assert made.content_type == "video/vnd.google-glass.stream-url"
    assert made.data.startswith(b"https://")


def test_without_pillow_the_error_names_the_extra_to_install():
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from glassq.dev import media\n"
        "from glassq.errors import SettingsError\n"
        "try: media.make('jpeg', 1)\n"
        "except SettingsError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "glassq[demo]" in done.stdout
