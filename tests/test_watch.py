"""What watches glassq: the alert rules, the dashboard and the scrape configuration in conf/ fit what glassq tells.

What Prometheus itself makes of them is in tests/system/test_alerts.py.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from glassq.cli.main import COMMANDS
from glassq.queues.postgres.gauges import gauges
from glassq.queues.sqs import facts as sqs_facts
from glassq.queues.sqs.looking import SqsQueue
from glassq.queues.swf import facts as swf_facts
from tests.conftest import ROOT, free_port, wait_for
from tests.intake.conftest import Web
from tests.intake.mutations import pings, sections
from tests.intake.wire import Wire, request
from tests.queues.test_postgres_facts import WELL
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd

CONF = ROOT / "conf"
ALERTS = CONF / "prometheus-alerts.yaml"
TEXT = ALERTS.read_text("utf-8")
# what is commented out is a rule, too
EVERY_TEXT = re.sub(r"^( +)# (?=- alert| )", r"\1", TEXT, flags=re.MULTILINE)
RULES = [rule for group in yaml.safe_load(EVERY_TEXT)["groups"] for rule in group["rules"]]
BOARD = json.loads((CONF / "grafana-glassq.json").read_text("utf-8"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]

# Every metric with the labels it has and, where they are known, their values.
KEPT = ("queue", "journal")
REASONS = ("malformed", "token", "path", "method", "slow", "length", "too_large", "media_type", "head", "expectation")
OUTCOMES = ("done", "dropped", "retry", "bury", "interrupted", "lease_lost")
STATES = ("ready", "reserved", "delayed", "buried")
CHILDREN = ("starting", "connecting", "waiting", "working", "stopping")
METRICS: dict[str, dict[str, tuple[str, ...]]] = {
    "glassq_build_info": {"version": ()},
    "glassq_pings_acknowledged_total": {"kept": KEPT},
    "glassq_requests_refused_total": {"reason": (*REASONS, "connections", "bug", "unavailable", "other")},
    "glassq_source_pings_total": {"source": (), "kind": ()},
    "glassq_source_challenges_total": {"source": (), "kind": ()},
    "glassq_source_refused_total": {"source": (), "kind": (), "reason": ()},
    "glassq_source_unread_labels_total": {"source": (), "kind": ()},
    "glassq_source_last_ping_seconds": {"source": (), "kind": ()},
    "glassq_source_clock_skew_seconds": {"source": (), "kind": ()},
    "glassq_source_secret_idle_seconds": {"source": (), "kind": (), "line": ()},
    "glassq_ping_seconds_bucket": {"le": ()},
    "glassq_ping_seconds_count": {},
    "glassq_ping_seconds_sum": {},
    "glassq_intake_batch_pings_bucket": {"le": ()},
    "glassq_intake_batch_pings_count": {},
    "glassq_intake_batch_pings_sum": {},
    "glassq_intake_keep_seconds_bucket": {"le": ()},
    "glassq_intake_keep_seconds_count": {},
    "glassq_intake_keep_seconds_sum": {},
    "glassq_queue_usable": {},
    "glassq_journal_deliveries": {},
    "glassq_journal_bytes": {},
    "glassq_journal_damaged": {},
    "glassq_journal_refused": {},
    "glassq_journal_oldest_seconds": {},
    "glassq_intake_ready": {},
    "glassq_intake_workers": {},
    "glassq_intake_workers_journaling": {},
    "glassq_syncer_up": {},
    "glassq_syncer_rounds": {},
    "glassq_syncer_failed": {},
    "glassq_syncer_asked": {},
    "glassq_syncer_seconds": {},
    "glassq_syncer_kept": {},
    "glassq_syncer_spare": {},
    "glassq_syncer_gaps": {},
    "glassq_syncer_refusing": {},
    "glassq_attempts_total": {"outcome": OUTCOMES},
    "glassq_attempts_unacknowledged_total": {},
    "glassq_attempts_lost_total": {},
    "glassq_jobs_damaged_total": {},
    "glassq_handler_seconds_bucket": {"le": ()},
    "glassq_handler_seconds_count": {},
    "glassq_handler_seconds_sum": {},
    "glassq_first_attempt_wait_seconds_bucket": {"le": ()},
    "glassq_first_attempt_wait_seconds_count": {},
    "glassq_first_attempt_wait_seconds_sum": {},
    "glassq_children": {"state": CHILDREN},
    "glassq_children_wanted": {},
    "glassq_queue_up": {},
    "glassq_jobs": {"tube": (), "state": STATES},
    "glassq_oldest_ready_seconds": {"tube": ()},
    "glassq_tube_paused": {"tube": ()},
    "glassq_parked_jobs": {"route": ()},
    "glassq_route_paused": {"route": ()},
    "glassq_queue_durable": {},
    "glassq_queue_draining": {},
    "glassq_binlog_files": {},
    "glassq_queue_connections": {},
    # PostgreSQL's
    "glassq_queue_connections_left": {},
    "glassq_queue_table_bytes": {},
    "glassq_queue_dead_rows": {},
    "glassq_queue_standbys_needed": {},
    "glassq_queue_idle_slots_bytes": {},
    "glassq_queue_standbys": {},
    "glassq_queue_standbys_in_sync": {},
    "glassq_queue_replication_lag_bytes": {},
    "glassq_queue_oldest_transaction_seconds": {},
    "glassq_queue_in_flight": {},
    "glassq_queue_retention_seconds": {},
    "glassq_queue_open_executions": {},
    "glassq_queue_undecided": {},
    # Prometheus's own
    "up": {},
    "ALERTS": {"alertname": (), "alertstate": ("firing", "pending")},
}
# Prometheus adds these to everything.
TARGET = {"instance", "job"}
JOBS = ("glassq-intake", "glassq-pool")
# PromQL's words and functions that are used, which are no metrics.
WORDS = {"sum", "min", "max", "count", "by", "on", "and", "or", "unless", "offset"}
WORDS |= {"rate", "increase", "histogram_quantile", "vector", "absent"}
LABELS = TARGET.union(*METRICS.values())


def expressions() -> Iterator[tuple[str, str]]:
    """Each with where it stands, Grafana's variables replaced by what it puts there."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], _filled(target["expr"])
    for annotation in BOARD["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], _filled(annotation["expr"])


def _filled(expr: str) -> str:
    return expr.replace("$__rate_interval", "1m").replace("$intake", ".+").replace("$pool", ".+")


EXPRESSIONS = [pytest.param(expr, id=where) for where, expr in expressions()]


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_an_expression_asks_only_for_what_glassq_tells(expr: str) -> None:
    bare = re.sub(r'"[^"]*"', '""', expr)
    assert bare.count("(") == bare.count(")")
    assert "$" not in bare
    names = re.findall(r"\b[A-Za-z_]\w*\b(?!\s*(?:=~|!~|=|!=))", re.sub(r"\[[^]]*\]|offset \w+", "", bare))
    assert set(names) - WORDS - LABELS <= set(METRICS)
    for metric, matchers in re.findall(r"(\w+)\{([^}]*)\}", expr):
        for label, operator, value in re.findall(r'(\w+)(=~|!~|=|!=)"([^"]*)"', matchers):
            assert label in METRICS[metric].keys() | TARGET
            known = METRICS[metric].get(label, JOBS if label == "job" else ())
            wanted = value.split("|") if "~" in operator and known else [value]
            assert not known or set(wanted) <= set(known)


def test_every_metric_is_shown_or_watched() -> None:
    every = " ".join(expr for _, expr in expressions())
    unused = {re.sub("_(bucket|count|sum)$", "", name) for name in METRICS if name.startswith("glassq_")}
    unused = {name for name in unused if name not in every}
    # one process more or less says little: whether a ping is taken, and by the queue, is watched
    says_little = {"glassq_intake_workers", "glassq_intake_workers_journaling"}
    # where glassq_ping_seconds come from: for who looks into that
    assert unused == says_little | {"glassq_intake_batch_pings", "glassq_intake_keep_seconds"}


def test_glassq_tells_what_alerts_and_dashboard_ask_for(tmp_path: Path, beanstalkd: Beanstalkd) -> None:
    """By the intake and the pool themselves, to the last label's last value."""
    doors = {name: ("127.0.0.1", free_port()) for name in ("intake", "pool")}
    asked = "\n".join(f'{name} = "{host}:{port}"' for name, (host, port) in doors.items())
    # Stripe signs the time, which Mirror does not
    stripe = next(ping for ping in pings() if ping.kind == "stripe")
    web = Web(tmp_path / "web", beanstalkd.url, queue=f"[metrics]\n{asked}\n{sections(tmp_path)}")
    try:
        with PoolRun(tmp_path, beanstalkd) as pool:
            pool.write_settings(route="breaker = 5\n", more=f"[metrics]\n{asked}")
            pool.start().ready()
            web.wait_ready()
            assert [web.ask(data).status for data in (request(), stripe.data, request(b"{"))] == [200, 200, 400]
            wait_for(lambda: "serving metrics" in pool.log(), "the pool to serve its metrics")
            told = [sample for door in doors.values() for sample in _scraped(door)]
    finally:
        web.stop()
    labels: dict[str, dict[str, set[str]]] = {name: {} for name, _ in told}
    for name, values in told:
        for label, value in values.items():
            labels[name].setdefault(label, set()).add(value)
    postgres = {gauge.name for gauge in gauges(WELL)} - {"glassq_queue_connections"}
    # so many rows lie on the shelf as glassq_jobs has buried ones, and far delayed ones
    sqs = {gauge.name for gauge in sqs_facts.gauges([SqsQueue("glassq")], 0)} - {"glassq_queue_shelf_rows"}
    swf = {gauge.name for gauge in swf_facts.gauges_of(0, 0)}
    others = postgres | sqs | swf
    assert others <= METRICS.keys()
    ours = {name: known for name, known in METRICS.items() if name.startswith("glassq_") and name not in others}
    assert {name: set(found) for name, found in labels.items()} == {name: set(known) for name, known in ours.items()}
    for name, known in ours.items():
        for label, values in known.items():
            assert not values or labels[name][label] == set(values), name


def _scraped(door: tuple[str, int]) -> Iterator[tuple[str, dict[str, str]]]:
    with Wire(door) as wire:
        answer = wire.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            yield sample.name, sample.labels


# -- alerts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_how_bad_it_is_and_what_to_type(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert re.fullmatch(r"\d+[mhd]", rule["for"])
    assert set(rule["annotations"]) - {"console"} == {"summary", "description"}
    assert "\n" not in rule["annotations"]["description"].strip()
    assert "http" not in rule["annotations"]["description"]
    _, _, typed = rule["annotations"]["description"].partition("Type: ")
    assert typed
    for command in re.findall(r"\bglassq ([a-z]+)", typed):
        assert command in COMMANDS


def test_no_alert_stands_twice() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    assert all(name.startswith("Glassq") for name in names)


def test_what_is_scraped_has_the_names_that_alerts_and_dashboard_ask_for() -> None:
    scraped = yaml.safe_load((CONF / "prometheus-glassq.yaml").read_text("utf-8"))["scrape_configs"]
    assert tuple(each["job_name"] for each in scraped) == JOBS
    shipped = (CONF / "glassq.toml").read_text("utf-8")
    for each in scraped:
        (address,) = each["static_configs"][0]["targets"]
        assert f' = "{address}"' in shipped


# -- the dashboard ----------------------------------------------------------------------------------------------------


def test_the_dashboard_can_be_imported_beside_others() -> None:
    assert BOARD["id"] is None
    assert BOARD["uid"] == "glassq"
    assert BOARD["schemaVersion"] >= 36
    assert [each["name"] for each in BOARD["templating"]["list"]] == ["datasource", "intake", "pool"]
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_the_dashboard_begins_with_whether_it_is_well() -> None:
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Is it well?", "Intake", "Pool", "Queue", "Sources", "PostgreSQL"]


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_has_a_unit_a_description_and_the_chosen_prometheus(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 40
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None
    for source in (panel, *panel["targets"]):
        assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    references = [target["refId"] for target in panel["targets"]]
    assert len(references) == len(set(references))
    for command in re.findall(r"\bType: glassq ([a-z]+)", panel["description"]):
        assert command in COMMANDS


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        taken |= cells
