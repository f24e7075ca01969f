"""Which store the settings name. Only the library of that one is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.bodies.directory import DirectoryBodies
from glassq.bodies.objects import ObjectBodies

if TYPE_CHECKING:
    from glassq.bodies.base import BodyStore, RemoteBodyStore
    from glassq.settings import Settings
    from glassq.values import BodiesUrl


def open_bodies(settings: Settings) -> BodyStore:
    """The store of the settings. It touches nothing yet, and connects to nothing. Raises SettingsError."""
    directory = settings.bodies.url.directory
    if directory is not None:
        return DirectoryBodies(directory, min_free=settings.bodies.min_free)
    return open_remote(settings.bodies.url)


def open_remote(url: BodiesUrl) -> RemoteBodyStore:
    """The store at a URL that is no directory. Raises SettingsError if its library is not installed."""
    if url.scheme == "postgres":
        from glassq.bodies.table import TableBodies

        return TableBodies(url)
    name, prefix = url.bucket
    if url.scheme == "gs":
        from glassq.bodies.gcs import GoogleBucket

        return ObjectBodies(GoogleBucket(name), prefix)
    from glassq.bodies.s3 import AmazonBucket

    return ObjectBodies(AmazonBucket(name), prefix)
