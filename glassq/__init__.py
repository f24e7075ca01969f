"""Answers a webhook ping in milliseconds and does the work later, without ever losing one.

This is what the author of a handler imports:

    from glassq import Bury, Delivery, Drop, Retry

    def handle(delivery: Delivery) -> str | None:
        ...
"""

from glassq.delivery import Delivery
from glassq.errors import Bury, Drop, Retry

__all__ = ["Bury", "Delivery", "Drop", "Retry", "__version__"]

__version__ = "0.1.0"
