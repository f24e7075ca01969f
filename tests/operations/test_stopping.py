"""How threads of the console pace their work."""

from __future__ import annotations

import threading
import time

import pytest

from glassq.errors import Stopped
from glassq.operations import stopping
from glassq.operations.stopping import Pacer


@pytest.mark.parametrize(
    ("ran", "waited", "share"),
    [(10, 0, 0.5), (0, 0, 0.5), (30, 10, 0.28125), (10, 10, 0.125), (10, 90, 0.1), (0, 10, 0.1)],
)
def test_where_others_want_the_processors_too_the_share_is_less(
    ran: int, waited: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "_times", lambda: (1_000, 1_000))
    pacer = Pacer(threading.Event(), 0.5, crowded=0.1)
    assert pacer._share_now((1_000 + ran, 1_000 + waited)) == pytest.approx(share)
    assert Pacer(threading.Event(), 0.5)._share_now((1_000 + ran, 1_000 + waited)) == 0.5


def test_the_kernel_tells_how_long_a_thread_ran() -> None:
    before = stopping._times()
    deadline = time.thread_time() + 0.02
    while time.thread_time() < deadline:
        pass
    now = stopping._times()
    assert now[0] > before[0] or now == (0, 0)


def test_a_pacer_ends_with_its_thread() -> None:
    ending = threading.Event()
    Pacer(ending, 0.5, time.monotonic() + 60)(1, 1)
    ending.set()
    with pytest.raises(Stopped):
        Pacer(ending, 0.5)(1, 1)
