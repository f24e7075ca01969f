"""Sources: who sends pings, and how we verify that a ping is genuine."""

from __future__ import annotations

from glassq.sources.base import Description, HookRequest, Proof, Reply, Source
from glassq.sources.opening import open_sources

__all__ = ["Description", "HookRequest", "Proof", "Reply", "Source", "open_sources"]
