"""The types of values in settings, each with its text form in glassq.toml.

Each raises ValueError for any other text, and says which form is expected.
"""

from glassq.values.addresses import MAX_SOCKET_PATH, Address, Bind, Network, Proxy, SyncerAddress
from glassq.values.names import HandlerName, LabelKey, ModuleName, SecretFile, Step, Tube
from glassq.values.numbers import Duration, Rate, Size
from glassq.values.queue_url import QueueUrl
from glassq.values.urls import (
    BodiesUrl,
    HttpUrl,
    StorageUrl,
    TargetUrl,
    UrlPattern,
    is_postgres,
    path_of,
    url_path,
    without_password,
)

__all__ = [
    "MAX_SOCKET_PATH",
    "Address",
    "Bind",
    "BodiesUrl",
    "Duration",
    "HandlerName",
    "HttpUrl",
    "LabelKey",
    "ModuleName",
    "Network",
    "Proxy",
    "QueueUrl",
    "Rate",
    "SecretFile",
    "Size",
    "Step",
    "StorageUrl",
    "SyncerAddress",
    "TargetUrl",
    "Tube",
    "UrlPattern",
    "is_postgres",
    "path_of",
    "url_path",
    "without_password",
]
