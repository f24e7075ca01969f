"""The handlers of the containers: put yours here (docs/handlers.md)."""

import logging

from glassq import Delivery

log = logging.getLogger(__name__)


def handle(delivery: Delivery) -> None:
    log.info("%s %s", delivery.source, delivery.labels)
