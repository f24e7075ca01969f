"""The files of docker/ fit the settings and the image. That they run needs docker, and is no test."""

from __future__ import annotations

import re
import sys

import pytest
import yaml

from glassq.settings import Settings, parse
from glassq.sources.presets import PRESETS
from glassq.values import Duration
from tests.conftest import ROOT

DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
IMAGE = (ROOT / "Dockerfile").read_text()


@pytest.fixture
def settings() -> Settings:
    return parse((DOCKER / "glassq.toml").read_text(), "glassq.toml")


def test_the_settings_of_the_containers_name_what_is_mounted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(name, source)] = settings.sources.items()
    assert name in PRESETS
    [secret] = COMPOSE["services"]["intake"]["secrets"]
    assert source.secrets_file == f"/run/secrets/{secret}"
    [token] = COMPOSE["services"]["tasks"]["secrets"]
    assert settings.tasks.token_file == f"/run/secrets/{token}"
    assert {secret, token} == COMPOSE["secrets"].keys()
    assert settings.push is not None
    for service in ("pool", "tasks"):
        assert settings.push.names.startswith("sqlite:///" + COMPOSE["services"][service]["volumes"][-1].split(":")[1])
    monkeypatch.syspath_prepend(str(DOCKER))
    for route in settings.routes:
        module, _, function = route.handler.partition(":")
        assert callable(getattr(__import__(module), function))
    assert {route.source for route in settings.routes} == {"github", "push"}
    del sys.modules[module]


def test_tasks_are_published_where_the_server_listens(settings: Settings) -> None:
    port = settings.tasks.bind.rpartition(":")[2]
    assert COMPOSE["services"]["tasks"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f":{port}/readyz" in (DOCKER / "healthy").read_text()
    assert f" {port}" in IMAGE


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_no_container_is_root_or_writes_outside_its_volumes(name: str) -> None:
    service = COMPOSE["services"][name]
    assert (service["user"], service["read_only"], service["cap_drop"]) == ("glassq", True, ["ALL"])
    made = set(re.findall(r"(?<=\s)/(?:run|var)/\S+", IMAGE))
    volumes = [volume.split(":")[1] for volume in service["volumes"] if not volume.startswith("./")]
    assert set(volumes) <= made, "a volume takes its owner from the image's directory"


def test_a_stop_lets_handlers_finish(settings: Settings) -> None:
    grace = {name: Duration(service["stop_grace_period"]) for name, service in COMPOSE["services"].items()}
    assert grace["pool"] >= settings.worker.deadline + settings.worker.grace
    assert grace["intake"] >= 20


def test_the_image_is_built_from_all_that_an_installation_copies() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.search(r'cp -R (.*) "\$work/tree"', (ROOT / "tools" / "install").read_text())
    assert copied is not None
    assert {f"!{name}" for name in copied[1].split()} <= set(ignored)
    assert "docker/secrets" in ignored
