"""The metrics that only PostgreSQL has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.queues.base import EngineGauge

if TYPE_CHECKING:
    from glassq.queues.postgres.server import ServerState


def gauges(state: ServerState) -> tuple[EngineGauge, ...]:
    """What a role cannot see is left out."""
    values: list[tuple[str, str, float | None]] = [
        ("glassq_queue_connections", "Connections that the queue's server has.", state.connections),
        ("glassq_queue_connections_left", "How many more connections glassq's role can open.", state.connections_left),
        ("glassq_queue_table_bytes", "Size of the table of jobs with its indexes.", state.table_bytes),
        ("glassq_queue_dead_rows", "Rows of the table of jobs that vacuum has yet to remove.", state.dead_rows),
        ("glassq_queue_standbys_needed", "Synchronous standbys that a commit waits for.", state.standbys_needed),
        ("glassq_queue_idle_slots_bytes", "WAL that unused replication slots keep on disk.", state.slots_hold or 0),
    ]
    if state.sees_all:
        values += [
            ("glassq_queue_standbys", "Standbys that are connected.", state.standbys),
            ("glassq_queue_standbys_in_sync", "Connected standbys that commits may wait for.", state.in_sync),
            ("glassq_queue_replication_lag_bytes", "How far the slowest standby is behind.", state.lag or 0),
            ("glassq_queue_oldest_transaction_seconds", "Age of the oldest transaction.", state.oldest_transaction),
        ]
    return tuple(EngineGauge(name, help_, float(value)) for name, help_, value in values if value is not None)
