"""The handlers of the containers: replace this file by yours (docs/handlers.md)."""

from glassq import Delivery


def handle(delivery: Delivery) -> None:
    print(delivery.id, delivery.labels, len(delivery.body), "bytes", flush=True)
