"""The sections of glassq.toml, with their keys and defaults.

Where a place is "" the settings as a whole know it: shared.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from glassq.values import (
    Address,
    Bind,
    BodiesUrl,
    Duration,
    HandlerName,
    HttpUrl,
    ModuleName,
    Network,
    Proxy,
    QueueUrl,
    SecretFile,
    Size,
    StorageUrl,
    SyncerAddress,
    TargetUrl,
    Tube,
)

# The source of tasks. The sources of pings are the sections of [sources].
TASK_SOURCE = "push"
# The source of the deliveries of schedules, and the labels that each has: its schedule, and the time it was due.
SCHEDULE_SOURCE, SCHEDULE_LABEL, DUE_LABEL = "schedule", "schedule", "due"
# The largest body of a ping: GitHub sends up to 25 MB, Pub/Sub, WhatsApp and e-mail with attachments less.
MAX_BODY = Size(25 << 20)
# The collections of sources that have them.
COLLECTIONS = {"mirror": ("timeline", "locations", "settings")}


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class QueueSettings(Section, frozen=True):
    """[queue]"""

    url: QueueUrl = QueueUrl("beanstalk://127.0.0.1:11300")
    tube: Tube = Tube("glassq")
    ttr: Duration = Duration("2m")
    connect_timeout: Duration = Duration("1s")
    timeout: Duration = Duration("2s")
    syncer: SyncerAddress = SyncerAddress("")

    @property
    def syncer_address(self) -> tuple[str, int] | str | None:
        """Where to ask for proofs: host and port, or the path of a unix socket. None: beanstalkd has no syncer."""
        return self.syncer.beside(self.url)


class IntakeSettings(Section, frozen=True):
    """[intake]"""

    bind: Bind = Bind("127.0.0.1:8080")
    workers: AtLeastOne = 2
    threads: AtLeastOne = 2
    max_body: Size = Size("16KiB")
    request_timeout: Duration = Duration("10s")
    journal: str = "/var/spool/glassq"
    journal_max: Size = Size("1GiB")
    journal_min_free: Size = Size("256MiB")
    memory_max: Size = Size("64MiB")
    spill_max: Size = Size("1GiB")
    acknowledge: Literal["queue", "journal"] = "queue"
    trusted_proxies: tuple[Proxy, ...] = ()
    key_cache: str = "/var/cache/glassq"


class BodiesSettings(Section, frozen=True):
    """[bodies]"""

    url: BodiesUrl = BodiesUrl("")
    min_free: Size = Size("256MiB")
    done_max: Size = Size("1GiB")


class SourceSettings(Section, frozen=True):
    """[sources.NAME]

    Which keys belong to a kind, and which it needs, `glassq.sources.open_sources` checks.
    """

    kind: str = ""
    secrets_file: SecretFile | None = None
    verify_tokens_file: SecretFile | None = None
    verify_token_file: SecretFile | None = None
    path_token_file: SecretFile | None = None
    allow: tuple[Network, ...] = ()
    url: TargetUrl | None = None
    tolerance: Duration | None = None
    max_body: Size | None = None
    content_types: tuple[str, ...] | None = None
    keep: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    event: str | None = None
    action: str | None = None
    event_id: str | None = None
    dedupe: Literal["event_id", "sha256", "none"] | None = None
    queue: str = ""
    audience: str | None = None
    account: str | None = None
    issuer: str | None = None
    webhook_id: str | None = None
    username: str | None = None
    custom: str | None = None
    header: str | None = None
    signed: str | None = None
    hash: Literal["sha1", "sha256", "sha512"] | None = None
    encoding: Literal["hex", "base64"] | None = None
    prefix: str | None = None
    list: tuple[str, ...] | None = None
    key: Literal["text", "hex", "base64"] | None = None
    timestamp: str | None = None
    unit: Literal["s", "ms", "rfc3339", "http"] | None = None
    token: str | None = None

    def kind_of(self, name: str) -> str:
        """The kind of the source that has this name: without `kind`, the name itself."""
        return self.kind or name


class WorkerQueue(Section, frozen=True):
    """[worker.queues.NAME]"""

    weight: AtLeastOne = 1
    children: Annotated[int, msgspec.Meta(ge=0)] = 0


class WorkerSettings(Section, frozen=True):
    """[worker]"""

    processes: AtLeastOne = 4
    lane_processes: Annotated[int, msgspec.Meta(ge=0)] = 0
    deadline: Duration = Duration("10m")
    grace: Duration = Duration("30s")
    max_attempts: AtLeastOne = 8
    max_lost: AtLeastOne = 3
    backoff: Duration = Duration("30s")
    backoff_cap: Duration = Duration("6h")
    max_jobs: AtLeastOne = 10_000
    max_rss: Size = Size("512MiB")
    clock_skew: Duration = Duration("1s")
    preload: bool = True
    hooks: tuple[HandlerName, ...] = ()
    queues: dict[str, WorkerQueue] = {}

    @property
    def kept(self) -> int:
        """How many worker processes are kept for single queues; all queues share the others."""
        return sum(queue.children for queue in self.queues.values())

    @property
    def most_of_a_queue(self) -> int:
        """How many worker processes one push queue may use at a time, unless queue.yaml says.

        One is left for other queues and for pings, because a target that hangs must not occupy all of them.
        """
        return max(1, self.processes - self.kept - 1)


class NotifySettings(Section, frozen=True):
    """[notify]"""

    on_buried: HandlerName | None = None
    at_most: Annotated[int, msgspec.Meta(ge=1, le=60)] = 1


class ScheduleSettings(Section, frozen=True):
    """[[schedule]]

    `catch_up` says what becomes of the times that passed while no pool ran: one delivery for all of them, or none.
    """

    name: str
    cron: str
    zone: str = "UTC"
    catch_up: Literal["once", "skip"] = "once"
    labels: dict[str, str] = {}
    body: str = ""
    content_type: str = ""

    @property
    def known_labels(self) -> dict[str, str]:
        """The labels that all its deliveries share."""
        return {**self.labels, SCHEDULE_LABEL: self.name}


class PushSettings(Section, frozen=True):
    """[push]"""

    queue_yaml: str | None = None
    cron_yaml: str | None = None
    names: str = ""
    deferred: tuple[ModuleName, ...] = ()
    targets: dict[str, TargetUrl] = {}


class TasksSettings(Section, frozen=True):
    """[tasks]"""

    bind: Bind = Bind("unix:/run/glassq/tasks.sock")
    token_file: SecretFile | None = None
    workers: AtLeastOne = 1


class ConsoleSettings(Section, frozen=True):
    """[console]"""

    bind: Bind = Bind("unix:/run/glassq-console.sock")
    url: HttpUrl | None = None
    viewers: tuple[str, ...] = ("glassq-console",)
    operators: tuple[str, ...] = ("glassq-operators",)
    proxy_user: str = ""
    proxy_header: str = ""
    proxy_viewers: tuple[str, ...] = ()
    proxy_operators: tuple[str, ...] = ()
    state: str = ""


class GlassSettings(Section, frozen=True):
    """[glass]"""

    api_url: HttpUrl = HttpUrl("https://www.googleapis.com/mirror/v1/")
    token_url: HttpUrl = HttpUrl("https://oauth2.googleapis.com/token")
    client_id: str = ""
    client_secret_file: SecretFile = SecretFile("/etc/glassq/secrets/client-secret")
    credentials: str = ""
    credentials_key_file: SecretFile = SecretFile("/etc/glassq/secrets/credentials-key")
    on_delete: Literal["keep", "delete"] = "keep"
    max_attachment: Size = Size("100MiB")
    processing_delay: Duration = Duration("15s")
    processing_patience: Duration = Duration("6h")


class StorageSettings(Section, frozen=True):
    """[storage]"""

    url: StorageUrl = StorageUrl("file:///var/lib/glassq/photos")


class LedgerSettings(Section, frozen=True):
    """[ledger]"""

    url: str = ""
    retention: Duration = Duration("30d")
    keep_bodies: bool = True


class MetricsSettings(Section, frozen=True):
    """[metrics]"""

    intake: Address | None = None
    pool: Address | None = None
    tasks: Address | None = None


class LogSettings(Section, frozen=True):
    """[log]"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
