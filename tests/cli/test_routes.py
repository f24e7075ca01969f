"""`glassq routes`, without a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.operations.test_routes import PUSH, TEXT

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_routes_are_listed_with_what_they_take_and_their_limits(offline: Cli) -> None:
    offline.configure(TEXT)
    said = offline("routes")
    assert said.code == 0
    words = " ".join(said.out.split())
    assert 'github event = "pull_request", action = "opened" or "re*" ci:review' in words
    assert 'photos mirror collection = "timeline" glass:store concurrency=2' in words
    assert "! route 3: no ping of github has a label topic" in words
    listed = offline("routes", "--json").json["routes"]
    assert [route["handler"] for route in listed] == ["ci:deploy", "ci:review", "ci:never", "glass:store"]


def test_a_saved_ping_is_told_where_it_would_go(offline: Cli) -> None:
    offline.configure(TEXT)
    (offline.directory / "push").write_bytes(PUSH)
    said = offline("routes", "test", "github", str(offline.directory / "push"))
    assert said.code == 0
    assert said.out.splitlines() == [
        "labels: event=push event_id=7 ref=refs/tags/v1",
        "route 1 (ci:deploy): takes it",
        'route 2 (ci:review): event is "push", and must be "pull_request"',
        'route 3 (ci:never): topic is not there, and must be "orders/*"',
        "route 4 (glass:store): it is for mirror",
        "a ping of github with these labels waits in tube glassq.queue.builds and goes to ci:deploy",
    ]


def test_a_ping_that_no_route_takes_is_exit_1_and_an_unknown_source_is_a_usage_error(offline: Cli) -> None:
    offline.configure(TEXT)
    said = offline("routes", "test", "github", "-", "--json", answer="{}")
    assert (said.code, said.json["route"], said.json["handler"]) == (1, None, None)
    said = offline("routes", "test", "stripe", "-", answer="{}")
    assert (said.code, said.out) == (2, "")
    assert "there is no source stripe: the settings have github, mirror" in said.err


def test_config_check_names_a_route_that_no_ping_can_take(offline: Cli) -> None:
    offline.configure(TEXT)
    said = offline("config", "check")
    assert said.code != 0
    assert f"{offline.file}: [[routes]] (3rd): no ping of github has a label topic" in said.out + said.err
