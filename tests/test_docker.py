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
    [route] = settings.routes
    monkeypatch.syspath_prepend(str(DOCKER))
    module, _, function = route.handler.partition(":")
    assert callable(getattr(__import__(module), function))
    del sys.modules[module]


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
