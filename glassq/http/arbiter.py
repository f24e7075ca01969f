"""gunicorn's parent process, for servers that open a metrics listener later than all others."""

from __future__ import annotations

from gunicorn.arbiter import Arbiter


class TendingArbiter(Arbiter):  # type: ignore[misc]
    """Calls the application's `tend_metrics` once a second: an address that is taken may be free by then."""

    def murder_workers(self) -> None:
        """gunicorn calls it about once a second."""
        super().murder_workers()
        self.app.tend_metrics(self)

    def renew_workers(self) -> None:
        """New workers get the listeners that there are now; the old ones finish what they answer."""
        for _ in range(self.num_workers):
            self.spawn_worker()
        self.manage_workers()
