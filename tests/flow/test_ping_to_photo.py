"""The whole way: a ping comes in by HTTP, a photo lies on disk. Every process and every protocol is the real one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq.dev.demo import prepare
from glassq.dev.simulator.glass import SimulatedGlass
from glassq.dev.stack import Stack
from glassq.glass.credentials import CredentialStore
from glassq.glass.subscriptions import subscribe
from glassq.settings import load
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings import Settings

USER = "115813563728193847561"


@pytest.fixture(scope="module")
def glass() -> Iterator[SimulatedGlass]:
    with SimulatedGlass() as server:
        yield server


@pytest.fixture(scope="module")
def settings(glass: SimulatedGlass, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """beanstalkd, intake and pool run; one user has consented and is subscribed."""
    directory = prepare(tmp_path_factory.mktemp("flow"), glass)
    with Stack(directory, logs=True) as stack:
        loaded = load(str(stack.config), {})
        account = glass.add_user(USER)
        CredentialStore.open(loaded).add(USER, account["refresh_token"])
        token = loaded.secret("sources.mirror.verify_tokens_file")[0]
        subscribe(loaded, USER, "timeline", f"http://{loaded.intake.bind}/hooks/mirror", token)
        yield loaded


def photos(settings: Settings) -> Path:
    return Path(settings.storage.url.removeprefix("file://"))


def logs(settings: Settings) -> str:
    return "".join(file.read_text() for file in (Path(settings.file).parent / "log").iterdir())


def test_a_shared_photo_is_acknowledged_and_stored_byte_for_byte(glass: SimulatedGlass, settings: Settings) -> None:
    item = glass.share(USER, ["jpeg", "mp4"])
    result = glass.ping(USER, item)
    assert result.statuses == (200,)

    first = photos(settings) / f"ugi-{USER}-{item.id}.jpg"
    others = lambda: list(photos(settings).glob(f"ugi-{USER}-{item.id}-*.mp4"))  # noqa: E731
    wait_for(lambda: first.exists() and others(), "both files to be stored")
    assert first.read_bytes() == item.attachments[0].data
    assert others()[0].read_bytes() == item.attachments[1].data


def test_a_photo_that_glass_still_processes_is_stored_when_it_is_ready(
    glass: SimulatedGlass, settings: Settings
) -> None:
    item = glass.share(USER, ["png"], processing_for=1.5)
    assert glass.ping(USER, item).acknowledged
    stored = photos(settings) / f"ugi-{USER}-{item.id}.png"
    assert not stored.exists()
    wait_for(stored.exists, "the photo to be stored")
    assert stored.read_bytes() == item.attachments[0].data


def test_a_ping_sent_twice_stores_one_photo(glass: SimulatedGlass, settings: Settings) -> None:
    item = glass.share(USER, ["jpeg"])
    assert glass.ping(USER, item).acknowledged
    assert glass.ping(USER, item).acknowledged
    wait_for(lambda: logs(settings).count(f"{item.id}.jpg") >= 2, "both deliveries to be done")
    assert len(list(photos(settings).glob(f"*{item.id}*"))) == 1


def test_a_ping_with_a_wrong_token_is_refused_and_stores_nothing(glass: SimulatedGlass, settings: Settings) -> None:
    spoofed, genuine = glass.share(USER, ["jpeg"]), glass.share(USER, ["jpeg"])
    body = glass.notification(USER, spoofed, verifyToken="somebody-else")
    callback = glass.subscription(USER).callback_url
    assert glass.send(callback, body, tries=1).statuses == (403,)
    assert glass.ping(USER, genuine).acknowledged
    wait_for((photos(settings) / f"ugi-{USER}-{genuine.id}.jpg").exists, "the genuine one to be stored")
    assert not list(photos(settings).glob(f"*{spoofed.id}*"))


def test_no_secret_is_in_any_log(glass: SimulatedGlass, settings: Settings) -> None:
    item = glass.share(USER, ["jpeg"])
    glass.fail_next("timeline.get", 401, "authError", times=1)
    assert glass.ping(USER, item).acknowledged
    wait_for((photos(settings) / f"ugi-{USER}-{item.id}.jpg").exists, "the photo to be stored")
    secrets = [
        settings.secret("sources.mirror.verify_tokens_file")[0],
        settings.secret("glass.client_secret_file")[0],
        settings.secret("glass.credentials_key_file")[0],
        CredentialStore.open(settings).get(USER).refresh_token,
    ]
    wait_for(lambda: item.id in logs(settings), "the line in the log")
    text = logs(settings)
    assert not [secret for secret in secrets if secret in text]
    assert "Bearer" not in text
