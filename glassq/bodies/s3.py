"""A bucket at Amazon, or at whoever speaks S3: region, credentials and endpoint are those of boto3's own settings.

boto3 is an extra (`pip install glassq[aws]`), and loaded with the first use: it takes 35 MiB.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from glassq.bodies.base import UPLOAD
from glassq.bodies.objects import Item
from glassq.errors import BodyError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Timeouts to connect, and to wait for an answer, in seconds.
_CONNECT, _READ = 3.05, 30.0
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})


class AmazonBucket:
    """See objects.Bucket. It connects with its first use."""

    def __init__(self, name: str, *, endpoint: str | None = None) -> None:
        """`endpoint` is the base URL of another server. Raises SettingsError if boto3 is not installed."""
        try:
            import boto3  # noqa: F401 - is it there?
        except ImportError:
            raise SettingsError(f"[bodies] url: s3:// needs boto3: {sys.prefix}/bin/pip install boto3") from None
        self.url = f"s3://{name}"
        self._name = name
        self._endpoint = endpoint
        self._clients: dict[float, Any] = {}

    def put(self, name: str, file: BinaryIO, size: int, within: float) -> None:
        with self._errors("cannot be written"):
            # one request of known length, streamed; Amazon compares its checksum
            self._client(within).put_object(Bucket=self._name, Key=name, Body=file, ContentLength=size)

    def read(self, name: str, start: int, size: int) -> bytes | None:
        with self._errors("cannot be read"):
            try:
                found = self._client().get_object(
                    Bucket=self._name, Key=name, Range=f"bytes={start}-{start + size - 1}"
                )
                data: bytes = found["Body"].read()
            except self._client().exceptions.ClientError as error:
                if _is_missing(error):
                    return None
                raise
        return data

    def find(self, name: str) -> Item | None:
        with self._errors("cannot be read"):
            try:
                found = self._client().head_object(Bucket=self._name, Key=name)
            except self._client().exceptions.ClientError as error:
                if _is_missing(error):
                    return None
                raise
        return Item(name, found["ContentLength"], found["LastModified"].timestamp())

    def list(self, prefix: str) -> Iterator[Item]:
        with self._errors("cannot be listed"):
            pages = iter(self._client().get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=prefix))
        while True:
            with self._errors("cannot be listed"):
                page = next(pages, None)
            if page is None:
                return
            for found in page.get("Contents", ()):
                yield Item(found["Key"], found["Size"], found["LastModified"].timestamp())

    def delete(self, name: str) -> None:
        with self._errors("cannot be written"):
            self._client().delete_object(Bucket=self._name, Key=name)

    def _client(self, within: float = UPLOAD) -> Any:
        """A client whose calls return within about so many seconds: boto3 has timeouts of a client, not of a call."""
        import boto3
        from botocore.config import Config

        # a few kinds of patience, not one client each time
        patience = UPLOAD if within > _READ else max(0.5, round(within, 1))
        if patience not in self._clients:
            config = Config(
                connect_timeout=min(_CONNECT, patience),
                read_timeout=min(_READ, patience),
                retries={"mode": "standard", "total_max_attempts": 3 if patience > _READ else 1},
                s3={"addressing_style": "path"} if self._endpoint else None,
            )
            self._clients[patience] = boto3.session.Session().client("s3", endpoint_url=self._endpoint, config=config)
        return self._clients[patience]

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            why = error.response.get("Error", {})
            raise BodyError(f"bodies {self.url}: {what}: {why.get('Code')}: {why.get('Message')}") from error
        except (BotoCoreError, OSError) as error:
            raise BodyError(f"bodies {self.url}: {what}: {error}") from error


def _is_missing(error: Any) -> bool:
    return error.response.get("Error", {}).get("Code") in _MISSING
