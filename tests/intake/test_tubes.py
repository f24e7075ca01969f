"""Into which tube a delivery goes that comes out of the intake journal."""

from __future__ import annotations

import pytest

from glassq import delivery as envelope
from glassq.intake.tubes import PingTubes
from glassq.journal import JournalRecord
from glassq.settings import parse

TUBES = PingTubes.of(
    parse(
        '[sources.a]\nqueue = "pay"\n[worker.queues.pay]\n[[routes]]\nsource = "a"\nhandler = "m:f"\n'
        'name = "mails"\nconcurrency = 1\n',
        "my.toml",
    )
)


def job(tube: str) -> bytes:
    return envelope.encode(envelope.new("test", b'\n{"tube": "other"}', {}, tube=tube))


@pytest.mark.parametrize(
    ("body", "tube"),
    [
        (job("glassq"), "glassq"),
        (job("glassq.queue.pay"), "glassq.queue.pay"),
        (job("glassq.route.mails"), "glassq.route.mails"),
        (job("glassq.route.gone"), "glassq"),
        # its queue was taken out of the settings since
        (job("glassq.queue.gone"), "glassq"),
        (job(""), "glassq"),
        (b"no delivery", "glassq"),
        (b"glassq/1 00000000\n", "glassq"),
        (b"glassq/1 00000000\n\xff\n", "glassq"),
        (b"glassq/1 00000000\n" + b"[" * 100_000 + b"\n", "glassq"),
        (b'glassq/1 00000000\n{"tube": 5}\n', "glassq"),
    ],
)
def test_it_is_the_one_in_its_header_if_the_settings_know_that(body: bytes, tube: str) -> None:
    (new,) = TUBES.jobs([JournalRecord("key", body)])
    assert (new.key, new.body, new.tube) == ("key", body, tube)
