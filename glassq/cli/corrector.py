"""How commands note in the ledger what they did to deliveries that the pool has told it of."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from glassq.cli.output import line
from glassq.errors import LedgerError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.cli.app import App
    from glassq.delivery import Delivery
    from glassq.ledger.corrections import Corrections


class Corrector:
    """Notes in the ledger what an operator did. Where that cannot be written, says so once, and notes nothing."""

    def __init__(self, corrections: Corrections | None) -> None:
        self._corrections = corrections

    def deleted(self, found: Delivery | None, why: str) -> None:
        """The delivery is removed for good."""
        if found is not None:
            self.forgotten(found.id, why)

    def forgotten(self, delivery: str, why: str) -> None:
        """The same of one that the queue did not hold any more."""
        self._note(lambda corrections: corrections.deleted(delivery, why))

    def held(self, found: Delivery | None, job: int, tube: str) -> None:
        """Another job holds the delivery from now on."""
        if found is not None:
            self._note(lambda corrections: corrections.held(found.id, str(job), tube))

    def _note(self, change: Callable[[Corrections], None]) -> None:
        if self._corrections is None:
            return
        try:
            change(self._corrections)
        except (LedgerError, SettingsError) as error:
            self._corrections = None
            said = f"could not update the ledger, so `doctor` may report this delivery as lost: {error}"
            click.echo(line(f"glassq: {said}"), err=True)


@contextmanager
def corrector(app: App) -> Iterator[Corrector]:
    """What notes changes in the ledger; one that is not there has nothing to be noted in."""
    from glassq.ledger.corrections import Corrections

    try:
        with app.ledger() as ledger:
            absent = ledger.absent
    except (LedgerError, SettingsError):
        # the first note says why
        absent = ""
    if absent:
        yield Corrector(None)
        return
    with Corrections(app.settings.ledger) as corrections:
        yield Corrector(corrections)
