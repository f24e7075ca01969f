from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import pytest

from glassq import host


@pytest.mark.parametrize(
    "own",
    [
        "127.0.0.1",
        "127.8.9.10",
        "::1",
        "[::1]",
        "::ffff:127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        socket.gethostname(),
        socket.gethostname().upper(),
    ],
)
def test_loopback_and_the_hosts_own_name_are_this_machine(own: str) -> None:
    assert host.is_own(own)


@pytest.mark.parametrize(
    "other", ["", "192.0.2.1", "2001:db8::1", "8.8.8.8", "www.googleapis.com", "localhost.example"]
)
def test_other_hosts_are_not(other: str) -> None:
    assert not host.is_own(other)


def test_an_address_of_an_interface_is_this_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            # sends nothing: the kernel says which of our addresses would be the sender
            sock.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("no interface but loopback")
        assert host.is_own(sock.getsockname()[0])


UNSHARE = ("unshare", "--uts")
MAY_NAME_HOSTS = shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"]).returncode == 0
SAY = "from glassq import host; import sys; sys.stdout.buffer.write(host.name().encode())"


@pytest.mark.skipif(not MAY_NAME_HOSTS, reason="only root may give itself another host name")
@pytest.mark.parametrize(
    ("name", "said"), [("münchen".encode(), "münchen"), (b"m\xfcnchen\xff", "m\\xfcnchen\\xff"), (b"plain", "plain")]
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_any_host_name_is_valid_utf_8(name: bytes, said: str, locale: str) -> None:
    set_name = f"import ctypes, os; ctypes.CDLL(None).sethostname({name!r}, {len(name)}); "
    start = f"os.execv({sys.executable!r}, [{sys.executable!r}, '-c', {SAY!r}])"
    command = [*UNSHARE, sys.executable, "-c", set_name + start]
    found = subprocess.run(command, env={**os.environ, "LC_ALL": locale}, capture_output=True, check=True)
    assert found.stdout.decode() == said
