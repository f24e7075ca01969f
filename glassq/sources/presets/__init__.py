"""The table of senders. Each row is one `Preset`; the modules are sorted by what the senders are about.

To add a sender, write a row, and a vector into tests/sources/vectors.json:

    Preset(name="acme", title="Acme", scheme=Hmac(("header:X-Acme-Signature",), prefix="sha256="),
           event="header:X-Acme-Event", event_id="json:id", keep=("x-acme-event",), docs="https://acme.example/webhooks")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.sources.presets import clouds, code, messages, payments, signers, standard, work

if TYPE_CHECKING:
    from glassq.sources.presets.preset import Preset

PRESETS: dict[str, Preset] = {
    row.name: row for module in (code, payments, messages, work, clouds, signers, standard) for row in module.ROWS
}
