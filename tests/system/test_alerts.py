"""The alert rules, and every expression of the dashboard, as Prometheus's own promtool reads them.

Each alert fires when it should, and no other does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from tests.system.programs import need, run
from tests.test_watch import ALERTS, CONF, EVERY_TEXT, RULES, expressions

if TYPE_CHECKING:
    from pathlib import Path

# What Prometheus has scraped, a value a minute, while all is well: "AxN" is always A, "A+BxN" grows by B.
WELL = {
    'up{job="glassq-intake", instance="a:9464"}': "1x400",
    'up{job="glassq-pool", instance="a:9465"}': "1x400",
    'glassq_intake_ready{job="glassq-intake", instance="a:9464"}': "1x400",
    'glassq_queue_usable{job="glassq-intake", instance="a:9464"}': "1x400",
    'glassq_pings_acknowledged_total{job="glassq-intake", instance="a:9464", kept="queue"}': "0+60x400",
    'glassq_requests_refused_total{job="glassq-intake", instance="a:9464", reason="token"}': "0+5x400",
    'glassq_requests_refused_total{job="glassq-intake", instance="a:9464", reason="unavailable"}': "0x400",
    'glassq_ping_seconds_bucket{job="glassq-intake", instance="a:9464", le="0.01"}': "0+60x400",
    'glassq_ping_seconds_bucket{job="glassq-intake", instance="a:9464", le="5"}': "0+60x400",
    'glassq_ping_seconds_bucket{job="glassq-intake", instance="a:9464", le="+Inf"}': "0+60x400",
    'glassq_journal_bytes{job="glassq-intake", instance="a:9464"}': "0x400",
    'glassq_journal_oldest_seconds{job="glassq-intake", instance="a:9464"}': "0x400",
    'glassq_journal_damaged{job="glassq-intake", instance="a:9464"}': "0x400",
    'glassq_journal_refused{job="glassq-intake", instance="a:9464"}': "0x400",
    'glassq_attempts_total{job="glassq-pool", instance="a:9465", outcome="done"}': "0+60x400",
    'glassq_attempts_total{job="glassq-pool", instance="a:9465", outcome="retry"}': "0+2x400",
    'glassq_attempts_total{job="glassq-pool", instance="a:9465", outcome="bury"}': "0x400",
    'glassq_attempts_lost_total{job="glassq-pool", instance="a:9465"}': "0x400",
    'glassq_children{job="glassq-pool", instance="a:9465", state="starting"}': "0x400",
    'glassq_children{job="glassq-pool", instance="a:9465", state="waiting"}': "1x400",
    'glassq_children{job="glassq-pool", instance="a:9465", state="working"}': "3x400",
    'glassq_children_wanted{job="glassq-pool", instance="a:9465"}': "4x400",
    'glassq_queue_up{job="glassq-pool", instance="a:9465"}': "1x400",
    'glassq_queue_durable{job="glassq-pool", instance="a:9465"}': "1x400",
    'glassq_syncer_up{job="glassq-pool", instance="a:9465"}': "1x400",
    'glassq_syncer_refusing{job="glassq-pool", instance="a:9465"}': "0x400",
    'glassq_queue_draining{job="glassq-pool", instance="a:9465"}': "0x400",
    'glassq_jobs{job="glassq-pool", instance="a:9465", tube="glassq", state="buried"}': "0x400",
    'glassq_jobs{job="glassq-pool", instance="a:9465", tube="glassq", state="ready"}': "5x400",
    'glassq_oldest_ready_seconds{job="glassq-pool", instance="a:9465", tube="glassq"}': "2x400",
    'glassq_oldest_ready_seconds{job="glassq-pool", instance="a:9465", tube="glassq.push.mail"}': "900x400",
    'glassq_tube_paused{job="glassq-pool", instance="a:9465", tube="glassq"}': "0x400",
    'glassq_tube_paused{job="glassq-pool", instance="a:9465", tube="glassq.push.mail"}': "0x400",
    'glassq_route_paused{job="glassq-pool", instance="a:9465", route="photos"}': "0x400",
    'glassq_binlog_files{job="glassq-pool", instance="a:9465"}': "3x400",
    'glassq_queue_connections_left{job="glassq-pool", instance="a:9465"}': "80x400",
    'glassq_queue_dead_rows{job="glassq-pool", instance="a:9465"}': "4000x400",
    'glassq_queue_oldest_transaction_seconds{job="glassq-pool", instance="a:9465"}': "2x400",
    'glassq_queue_replication_lag_bytes{job="glassq-pool", instance="a:9465"}': "9000x400",
    'glassq_queue_idle_slots_bytes{job="glassq-pool", instance="a:9465"}': "0x400",
    'glassq_queue_in_flight{job="glassq-pool", instance="a:9465"}': "40x400",
    'glassq_queue_retention_seconds{job="glassq-pool", instance="a:9465"}': "1209600x400",
    'glassq_queue_open_executions{job="glassq-pool", instance="a:9465"}': "900x400",
    'glassq_queue_undecided{job="glassq-pool", instance="a:9465"}': "3x400",
}
# What is otherwise (the metric, with as many of its labels as it takes: other values), and what fires then.
BAD: list[tuple[dict[str, str], set[str]]] = [
    ({}, set()),
    ({"up{job=intake": "0x400"}, {"GlassqIntakeDown"}),
    ({"up{job=intake": "_x400"}, {"GlassqIntakeDown"}),
    ({"up{job=pool": "0x400"}, {"GlassqPoolDown"}),
    ({"up{job=pool": "_x400"}, {"GlassqPoolDown"}),
    ({"glassq_intake_ready": "0x400"}, {"GlassqPingsNotTaken"}),
    ({"glassq_requests_refused_total{reason=unavailable": "0+1x400"}, {"GlassqPingsFail"}),
    ({"glassq_requests_refused_total{reason=unavailable": "0 1x399"}, set()),
    ({"glassq_requests_refused_total{reason=token": "0+70x400"}, {"GlassqTokensRefused"}),
    ({"glassq_queue_usable": "0x400"}, {"GlassqJournaling"}),
    ({"glassq_journal_bytes": "600000000x400"}, {"GlassqJournalFillsUp"}),
    ({"glassq_journal_oldest_seconds": "0+60x400"}, {"GlassqJournalNotMovedOn"}),
    ({"glassq_journal_oldest_seconds": "0+60x400", "glassq_queue_usable": "0x400"}, {"GlassqJournaling"}),
    ({"glassq_journal_damaged": "1x400"}, {"GlassqJournalDamaged"}),
    ({"glassq_journal_refused": "1x400"}, {"GlassqJournalDamaged"}),
    ({"glassq_syncer_up": "0x400"}, {"GlassqNoProofs"}),
    ({"glassq_syncer_refusing": "1x400"}, {"GlassqSyncerRefuses"}),
    ({"glassq_ping_seconds_bucket{le=0.01": "0+50x400"}, {"GlassqAcknowledgesSlowly"}),
    ({"glassq_pings_acknowledged_total": "70x400", "glassq_requests_refused_total{reason=token": "0x400"},
     {"GlassqNoPings"}),
    ({"glassq_children{state=working": "2x400"}, {"GlassqChildrenMissing"}),
    ({"glassq_children{state=waiting": "0x400", "glassq_children{state=working": "0x400",
      "glassq_queue_up": "0x400"}, {"GlassqQueueDown"}),
    # more than are wanted: a reload
    ({"glassq_children{state=waiting": "4x400"}, set()),
    ({"glassq_attempts_lost_total": "0x395 1x5"}, {"GlassqAttemptsLost"}),
    ({"glassq_attempts_total{outcome=retry": "0+80x400"}, {"GlassqRetriesMany"}),
    # more than half, but few
    ({"glassq_attempts_total{outcome=done": "0x400", "glassq_attempts_total{outcome=retry": "0+1x400"}, set()),
    ({"glassq_attempts_total{outcome=bury": "0+2x400"}, {"GlassqBuriesMany"}),
    ({"glassq_queue_up": "0x400"}, {"GlassqQueueDown"}),
    ({"glassq_queue_durable": "0x400"}, {"GlassqQueueNotDurable"}),
    ({"glassq_queue_draining": "1x400"}, {"GlassqQueueDraining"}),
    ({"glassq_oldest_ready_seconds{tube=glassq": "0+60x400"}, {"GlassqBacklog"}),
    ({"glassq_oldest_ready_seconds{tube=glassq": "0+60x400", "glassq_tube_paused{tube=glassq": "1x400"},
     {"GlassqTubePaused"}),
    ({"glassq_oldest_ready_seconds{tube=glassq.push.mail": "0+60x400"}, {"GlassqPushBacklog"}),
    ({"glassq_route_paused{route=photos": "1x400"}, {"GlassqRoutePaused"}),
    ({"glassq_jobs{state=buried": "1x400"}, {"GlassqBuried"}),
    ({"glassq_queue_connections_left": "4x400"}, {"GlassqConnectionsFew"}),
    ({"glassq_queue_dead_rows": "2000000x400"}, {"GlassqVacuumHeldUp"}),
    ({"glassq_queue_oldest_transaction_seconds": "0+60x400"}, {"GlassqVacuumHeldUp"}),
    ({"glassq_queue_replication_lag_bytes": "300000000x400"}, {"GlassqReplicationLags"}),
    ({"glassq_queue_idle_slots_bytes": "2000000000x400"}, {"GlassqIdleSlot"}),
    ({"glassq_queue_in_flight": "100000x400"}, {"GlassqSqsInFlight"}),
    ({"glassq_queue_retention_seconds": "345600x400"}, {"GlassqSqsRetention"}),
    ({"glassq_queue_open_executions": "80000x400"}, {"GlassqSwfFull"}),
    ({"glassq_queue_undecided": "9000x400"}, {"GlassqSwfUndecided"}),
    ({"glassq_binlog_files": "50x400"}, set()),
    ({"glassq_binlog_files": "50x400", "glassq_jobs{state=buried": "1x400"}, {"GlassqBuried", "GlassqBinlogPinned"}),
]  # fmt: skip
# Long enough for every "for"; whatever fires then is asked for.
LATE = "400m"


def test_every_alert_fires_when_it_should_and_no_other_does(tmp_path: Path) -> None:
    assert set().union(*(fires for _, fires in BAD)) == {rule["alert"] for rule in RULES}
    (tmp_path / "alerts.yaml").write_text(EVERY_TEXT)
    cases = {"rule_files": ["alerts.yaml"], "evaluation_interval": "2m", "tests": list(map(_case, BAD))}
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases))
    _promtool("test", "rules", str(tmp_path / "cases.yaml"))


def _case(bad: tuple[dict[str, str], set[str]]) -> dict[str, Any]:
    changes, fires = bad
    series = dict(WELL)
    for which, values in changes.items():
        metric, _, label = which.partition("{")
        name, _, value = label.partition("=")
        value = f"glassq-{value}" if name == "job" else value
        found = [each for each in WELL if each.startswith(metric + "{") and (not label or f'{name}="{value}"' in each)]
        assert len(found) == 1, which
        series[found[0]] = values
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": LATE,
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(fires)],
            }
        ],
    }


def test_prometheus_takes_the_rules_and_what_is_scraped(tmp_path: Path) -> None:
    _promtool("check", "rules", str(ALERTS))
    _promtool("check", "config", str(CONF / "prometheus-glassq.yaml"))
    # every expression as a rule of its own: promtool parses those
    rules = [{"record": f"expr:{number}", "expr": expr} for number, (_, expr) in enumerate(expressions())]
    (tmp_path / "every.yaml").write_text(yaml.safe_dump({"groups": [{"name": "every", "rules": rules}]}))
    _promtool("check", "rules", str(tmp_path / "every.yaml"))


def _promtool(*arguments: str) -> None:
    run(need("promtool", "prometheus"), *arguments)
