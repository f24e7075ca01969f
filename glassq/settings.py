"""One frozen Settings value from glassq.toml.

Each program calls `load` once, at its root; nobody else reads the environment. Every error names the file, the key, the
value and what is expected.
When you add a key: add it here with its default, and to conf/glassq.toml with its unit and reason (a test compares
the two).
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from glassq import mistakes
from glassq.edited import read_text, secret_lines
from glassq.errors import SettingsError, UnreadableText
from glassq.mistakes import place
from glassq.outdated import as_written, remarks, renewed
from glassq.systemd import MISSING, credential_name
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
    UrlPattern,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

DEFAULT_FILE = Path("/etc/glassq/glassq.toml")

# The sections that each program reads. Mistakes in other sections must not stop it.
INTAKE = frozenset({"queue", "intake", "bodies", "sources", "metrics", "log"})
POOL = frozenset({"queue", "bodies", "worker", "routes", "push", "glass", "storage", "ledger", "metrics", "log"})
TASKS = frozenset({"queue", "push"})
# The remedy where systemd has no copy of a source's secret for this service: the file itself is hidden from it.
_NOT_PASSED_ON = (
    "; systemd passes it on after: systemctl daemon-reload && systemctl restart glassq-web "
    "(if [sources.NAME] and its keys each have a line of their own)"
)
# Keys that every program needs, whatever section they are in: whoever puts a job sets its lease (`Settings.lease`).
_SHARED = {"worker": ("deadline",)}

# A job's lease outlasts the longest attempt by this many seconds: time to reserve it, notice an overrun, and kill.
LEASE_MARGIN = 30.0
# The longest lease that fits beanstalkd's protocol, in seconds.
MAX_LEASE = (1 << 32) - 1
# The tube of a push queue is [queue] tube, ".push." and the queue's name (up to 100 characters): at most 200 in all.
MAX_BASE = 94
# The longest name of a tube that beanstalkd takes. The queue of [worker.queues] whose tube is [queue] tube.
MAX_TUBE, MAIN_QUEUE = 200, "default"
MAX_WEIGHT = 1_000
# The source of tasks. The sources of pings are the sections of [sources].
TASK_SOURCE = "push"
_SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# The largest body of a ping: GitHub sends up to 25 MB, Pub/Sub, WhatsApp and e-mail with attachments less.
MAX_BODY = Size(25 << 20)
# The keys of a source that name a secret file.
_SOURCE_FILES = ("secrets_file", "verify_tokens_file", "verify_token_file", "path_token_file")
# The collections of sources that have them.
COLLECTIONS = {"mirror": ("timeline", "locations", "settings")}


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class QueueSettings(_Section, frozen=True):
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


class IntakeSettings(_Section, frozen=True):
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


class BodiesSettings(_Section, frozen=True):
    """[bodies]"""

    url: BodiesUrl = BodiesUrl("file:///var/lib/glassq/bodies")
    min_free: Size = Size("256MiB")
    done_max: Size = Size("1GiB")


class SourceSettings(_Section, frozen=True):
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


class WorkerQueue(_Section, frozen=True):
    """[worker.queues.NAME]"""

    weight: AtLeastOne = 1
    children: Annotated[int, msgspec.Meta(ge=0)] = 0


class WorkerSettings(_Section, frozen=True):
    """[worker]"""

    processes: AtLeastOne = 4
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


class Route(_Section, frozen=True):
    """[[routes]]"""

    source: str
    handler: HandlerName
    match: dict[str, str | tuple[str, ...]] | None = None
    collection: str | None = None
    operation: str | None = None
    queue: str | None = None
    url: UrlPattern | None = None
    coalesce: bool = False
    dedupe_window: Duration | None = None

    @property
    def conditions(self) -> dict[str, str | tuple[str, ...]]:
        """What each label must be, by its name: a text, one with * at its end for all that begin so, or several."""
        words = {"collection": self.collection, "operation": self.operation, "url": self.url}
        if self.source == TASK_SOURCE:
            # only tasks are in a queue; the route of a ping names the queue whose limits apply to its handler
            words["queue"] = self.queue
        return {**(self.match or {}), **{name: value for name, value in words.items() if value is not None}}

    def wants(self, source: str, labels: Mapping[str, str]) -> bool:
        """Whether this route matches a delivery from `source` with these labels."""
        return source == self.source and all(
            label_fits(wanted, labels.get(name)) for name, wanted in self.conditions.items()
        )


def label_fits(wanted: str | tuple[str, ...], label: str | None) -> bool:
    """Whether a label is what a condition of a route wants; None: the delivery has no such label."""
    if label is None:
        return False
    if isinstance(wanted, UrlPattern):
        return wanted.fits(label)
    several = (wanted,) if isinstance(wanted, str) else wanted
    return any(label.startswith(text[:-1]) if text.endswith("*") else label == text for text in several)


class PushSettings(_Section, frozen=True):
    """[push]"""

    queue_yaml: str | None = None
    names: str = "sqlite:////var/lib/glassq/task-names.db"
    deferred: tuple[ModuleName, ...] = ()
    targets: dict[str, TargetUrl] = {}


class GlassSettings(_Section, frozen=True):
    """[glass]"""

    api_url: HttpUrl = HttpUrl("https://www.googleapis.com/mirror/v1/")
    token_url: HttpUrl = HttpUrl("https://oauth2.googleapis.com/token")
    client_id: str = ""
    client_secret_file: SecretFile = SecretFile("/etc/glassq/secrets/client-secret")
    credentials: str = "/var/lib/glassq/credentials"
    credentials_key_file: SecretFile = SecretFile("/etc/glassq/secrets/credentials-key")
    on_delete: Literal["keep", "delete"] = "keep"
    max_attachment: Size = Size("100MiB")
    processing_delay: Duration = Duration("15s")
    processing_patience: Duration = Duration("6h")


class StorageSettings(_Section, frozen=True):
    """[storage]"""

    url: StorageUrl = StorageUrl("file:///var/lib/glassq/photos")


class LedgerSettings(_Section, frozen=True):
    """[ledger]"""

    url: str = "sqlite:////var/lib/glassq/ledger.db"
    retention: Duration = Duration("30d")
    keep_bodies: bool = True


class MetricsSettings(_Section, frozen=True):
    """[metrics]"""

    intake: Address | None = None
    pool: Address | None = None


class LogSettings(_Section, frozen=True):
    """[log]"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(_Section, frozen=True):
    """All of glassq.toml. `file` is its path.

    `ignored` are the mistakes in sections that this program does not read; those sections hold their defaults.
    `outdated` are remarks about keys of the last release, which are taken for one more.
    """

    file: str = ""
    ignored: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    queue: QueueSettings = QueueSettings()
    intake: IntakeSettings = IntakeSettings()
    bodies: BodiesSettings = BodiesSettings()
    sources: dict[str, SourceSettings] = {}
    worker: WorkerSettings = WorkerSettings()
    routes: tuple[Route, ...] = ()
    push: PushSettings | None = None
    glass: GlassSettings = GlassSettings()
    storage: StorageSettings = StorageSettings()
    ledger: LedgerSettings = LedgerSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    @property
    def lease(self) -> int:
        """The lease of every job, in whole seconds: [queue] ttr, or more if an attempt may take longer.

        A handler that holds the interpreter lock prevents its process from renewing the lease.
        """
        longest = max(self.queue.ttr, self.worker.deadline + LEASE_MARGIN)
        return min(MAX_LEASE, math.ceil(longest))

    def secret(self, key: str) -> list[str]:
        """The secrets in the file that `key` (such as "glass.client_secret_file") names, one per line.

        Blank lines and lines that start with # are ignored; at least one other line is required.
        Raises SettingsError with file, key, path and reason, but without the content.
        """
        try:
            secrets = secret_lines(self.secret_text(key))
        except UnreadableText as error:
            raise self.refused(key, str(error)) from None
        if not secrets:
            raise self.refused(key, "is empty: expected one secret per line")
        return secrets

    def secret_text(self, key: str) -> str:
        """The text of the secret file that `key` names, or of systemd's copy. Raises SettingsError like `secret`."""
        path = self.secret_path(key)
        copied = bool(path.copy) and os.access(path.copy, os.R_OK)
        try:
            text = read_text(path.copy if copied else path)
        except UnreadableText as error:
            late = path.copy and not copied and key.startswith("sources.")
            raise self.refused(key, f"{error}{_NOT_PASSED_ON if late else ''}") from None
        if text.strip() == MISSING:
            raise self.refused(key, "is missing")
        return text

    def refused(self, key: str, why: str) -> SettingsError:
        """The error for the file that `key` names. `why` starts with a verb."""
        return SettingsError(f'{self.file}: {place(key.split("."))} = "{self.secret_path(key)}": the file {why}')

    def secret_path(self, key: str) -> SecretFile:
        """The path of the secret file that `key` names. Raises SettingsError if the settings name none."""
        value: Any = self
        for name in key.split("."):
            if value is None:
                raise SettingsError(
                    f"{self.file}: missing section [{key.rpartition('.')[0]}]: expected it for its {name}"
                )
            value = value.get(name) if isinstance(value, dict) else getattr(value, name)
        if value is None:
            raise SettingsError(f"{self.file}: missing key {place(key.split('.'))}: expected the path of a file")
        path: SecretFile = value
        return path


_NO_KEYS = ("file", "ignored", "outdated")
_SECTIONS = frozenset(Settings.__struct_fields__) - frozenset(_NO_KEYS)


def file_of(path: str | None, environ: Mapping[str, str]) -> Path:
    """The settings file: `path`, else that of GLASSQ_CONFIG, else /etc/glassq/glassq.toml."""
    return Path(path or environ.get("GLASSQ_CONFIG") or DEFAULT_FILE)


def find_modules_beside(settings: Settings) -> None:
    """Has Python find modules beside the settings file, after all other places: handlers, classes of sources."""
    home = str(Path(settings.file).resolve().parent)
    if settings.file and home not in sys.path:
        sys.path.append(home)


def load(path: str | None, environ: Mapping[str, str], uses: Collection[str] | None = None) -> Settings:
    """Settings from the file that `file_of` names.

    `uses` are the sections that must be right; None: all. In paths of secret files, a leading $CREDENTIALS_DIRECTORY
    (of systemd's LoadCredential) is replaced. Raises SettingsError.
    """
    file = file_of(path, environ)
    try:
        text = read_text(file, "glassq.toml")
    except UnreadableText as error:
        unread = isinstance(error.__cause__, OSError) and not path
        hint = "; name another with --config or GLASSQ_CONFIG" if unread else ""
        raise SettingsError(f"{file}: {error}{hint}") from None
    return parse(text, str(file), environ.get("CREDENTIALS_DIRECTORY"), uses)


def parse(
    text: str, file: str, credentials_directory: str | None = None, uses: Collection[str] | None = None
) -> Settings:
    """Settings from the text of a glassq.toml; `file` is its name in messages. Otherwise like `load`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: {mistakes.syntax(error, text, Settings)}") from None
    for name in _NO_KEYS:
        if name in document:
            raise SettingsError(f"{file}: unknown key {name}{mistakes.located(text, [name])}")
    outdated = tuple(remarks(document, text, file))
    ignored = []
    for name in sorted(_SECTIONS & document.keys() - set(_SECTIONS if uses is None else uses)):
        try:
            _convert({name: document[name]}, text, file, credentials_directory)
        except SettingsError as error:
            ignored.append(str(error))
            document |= _usable(document, name, text, file)
    settings = _convert(document, text, file, credentials_directory)
    for key, mistake in _check_together(settings, text):
        section = key.partition(".")[0]
        if uses is None or section in uses:
            raise SettingsError(mistake)
        ignored.append(mistake)
        kept = _convert(_usable(document, section, text, file), text, file, credentials_directory)
        settings = msgspec.structs.replace(settings, **{section: getattr(kept, section)})
    return msgspec.structs.replace(settings, ignored=tuple(ignored), outdated=outdated)


def _usable(document: dict[str, Any], section: str, text: str, file: str) -> dict[str, Any]:
    """Removes a section with a mistake from the document; returns its keys that every program needs."""
    found = document.pop(section, {})
    usable = {name: found[name] for name in _SHARED.get(section, ()) if isinstance(found, dict) and name in found}
    try:
        _convert({section: usable}, text, file, None)
    except SettingsError:
        return {}
    return {section: usable} if usable else {}


def _convert(document: dict[str, Any], text: str, file: str, credentials_directory: str | None) -> Settings:
    def custom(kind: type, value: Any) -> Any:
        if kind is SecretFile:
            return _secret_file(value, credentials_directory)
        # in the file, only a text can have the unit that a number needs; no kind accepts a NUL
        return kind(value if isinstance(value, str) else "\0")

    today = renewed(document, text, file)
    try:
        settings = msgspec.convert(today, Settings, dec_hook=custom)
    except msgspec.ValidationError as error:
        said = as_written(mistakes.value(error, text, today, Settings, custom), document, text)
        raise SettingsError(f"{file}: {said}") from None
    return msgspec.structs.replace(settings, file=file)


def as_toml(settings: Settings) -> str:
    """The effective settings in the form of glassq.toml. Secrets are in files of their own, so it has none."""
    lines = [f"# {settings.file}"]
    names = ("queue", "intake", "bodies", "sources", "worker", "push", "glass", "storage", "ledger", "metrics", "log")
    for name in names:
        section: Any = getattr(settings, name)
        if isinstance(section, dict):
            for source, keys in section.items():
                lines += ["", f"[{name}.{source}]", *_changed_pairs(keys)]
        elif section is not None:
            lines += ["", f"[{name}]", *_pairs(section)]
        if name == "worker":
            for queue, keys in settings.worker.queues.items():
                lines += ["", f"[worker.queues.{queue}]", *_pairs(keys)]
    if settings.push is not None and settings.push.targets:
        lines += [
            "",
            "[push.targets]",
            *(f"{toml_value(key)} = {toml_value(url)}" for key, url in settings.push.targets.items()),
        ]
    for route in settings.routes:
        lines += ["", "[[routes]]", *_pairs(route)]
    return "\n".join(lines) + "\n"


def _pairs(section: msgspec.Struct) -> list[str]:
    # a table of sections comes after them
    tables = ("queues", "targets")
    values = {name: getattr(section, name) for name in section.__struct_fields__ if name not in tables}
    return [f"{name} = {toml_value(value)}" for name, value in values.items() if value is not None]


def _changed_pairs(section: msgspec.Struct) -> list[str]:
    """The keys that differ from their defaults: most belong to other kinds of sources."""
    default = type(section)()
    values = {name: getattr(section, name) for name in section.__struct_fields__}
    return [f"{name} = {toml_value(value)}" for name, value in values.items() if value != getattr(default, name)]


def toml_value(value: object) -> str:
    """The value as glassq.toml writes it."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{toml_value(name)} = {toml_value(each)}' for name, each in value.items())} }}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, int) and not isinstance(value, Size):
        return str(value)
    # TOML has JSON's escapes, and also requires one for DEL
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _secret_file(value: object, credentials_directory: str | None) -> SecretFile:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected the path of a file that holds the secret")
    if not value.startswith("$CREDENTIALS_DIRECTORY/"):
        copy = credentials_directory and f"{credentials_directory}/{credential_name(value)}"
        return SecretFile(value, copy or "")
    if not credentials_directory:
        raise ValueError("expected systemd to set CREDENTIALS_DIRECTORY (LoadCredential= in the unit)")
    return SecretFile(value.replace("$CREDENTIALS_DIRECTORY", credentials_directory, 1))


# Whether the rule holds, the key, its value, and what is expected of it.
_Rule = tuple[bool, str, object, str]


def _check_together(settings: Settings, text: str) -> Iterator[tuple[str, str]]:
    """Checks rules about several keys. Yields the key of each mistake, and the message."""
    rules = _rules(settings)
    for name, source in settings.sources.items():
        rules += _source_rules(name, source)
    for index, route in enumerate(settings.routes):
        rules += _route_rules(f"routes.{index}", route, settings)
    rules += _queue_rules(settings)
    for fits, key, value, expected in rules:
        if not fits:
            names = key.split(".")
            where = mistakes.located(text, names)
            yield key, f'{settings.file}: {place(names)} = "{value}": expected {expected}{where}'
    for mistake in _unknown_queues(settings, text):
        yield "worker.queues", mistake


def _rules(settings: Settings) -> list[_Rule]:
    worker, queue = settings.worker, settings.queue
    inside, bind = settings.metrics.intake, str(settings.intake.bind)
    return [
        (worker.grace < worker.deadline, "worker.grace", worker.grace, "shorter than deadline"),
        (worker.backoff >= 1, "worker.backoff", worker.backoff, "at least 1s"),
        (worker.backoff_cap >= worker.backoff, "worker.backoff_cap", worker.backoff_cap, "at least backoff"),
        (
            settings.push is None or len(queue.tube) <= MAX_BASE,
            "queue.tube",
            queue.tube,
            f"at most {MAX_BASE} characters: with [push] the names of queues are appended",
        ),
        (queue.ttr >= 5 and queue.ttr % 1 == 0, "queue.ttr", queue.ttr, "whole seconds, at least 5s"),
        (0 < queue.connect_timeout <= 60, "queue.connect_timeout", queue.connect_timeout, "up to 1m, not 0"),
        (0 < queue.timeout <= 60, "queue.timeout", queue.timeout, "up to 1m, not 0"),
        (
            0 < settings.intake.max_body <= MAX_BODY,
            "intake.max_body",
            settings.intake.max_body,
            "1B to 25MiB",
        ),
        (
            settings.intake.spill_max >= MAX_BODY,
            "intake.spill_max",
            settings.intake.spill_max,
            "at least 25MiB, the largest body",
        ),
        (
            settings.intake.memory_max >= 1 << 20,
            "intake.memory_max",
            settings.intake.memory_max,
            "at least 1MiB",
        ),
        (
            settings.intake.request_timeout >= 1,
            "intake.request_timeout",
            settings.intake.request_timeout,
            "at least 1s",
        ),
        (
            settings.metrics.pool is None
            or settings.metrics.pool not in (settings.metrics.intake, settings.intake.bind),
            "metrics.pool",
            settings.metrics.pool,
            "another address than intake has",
        ),
        (
            inside is None or str(inside) == bind or str(inside).rpartition(":")[2] != bind.rpartition(":")[2],
            "metrics.intake",
            settings.metrics.intake,
            "the address of [intake] bind, or another port",
        ),
    ]


def _source_rules(name: str, source: SourceSettings) -> list[_Rule]:
    at, largest = f"sources.{name}", source.max_body
    fits = bool(_SOURCE_NAME.fullmatch(name)) and name != TASK_SOURCE
    expected = f"a name of 1 to 63 of a-z 0-9 and -, not - first: it is the word in /hooks/NAME; {TASK_SOURCE} is taken"
    return [
        (fits, at, source.kind, expected),
        (largest is None or 0 < largest <= MAX_BODY, f"{at}.max_body", largest or 0, f"1B to {MAX_BODY}"),
    ]


def _route_rules(at: str, route: Route, settings: Settings) -> list[_Rule]:
    """`at` is the route's key."""
    rules: list[_Rule] = []
    # a route with an unknown source would match nothing, and its pings would be dropped as "no route"; a machine
    # without intake needs no sections of sources
    known = (*settings.sources, TASK_SOURCE)
    elsewhere = not settings.sources and bool(_SOURCE_NAME.fullmatch(route.source))
    rules.append((route.source in known or elsewhere, f"{at}.source", route.source, f"one of: {', '.join(known)}"))
    to_url = route.handler.is_url
    fits = not to_url or settings.push is not None
    rules.append((fits, f"{at}.handler", route.handler, "a [push] section, which URLs need"))
    of_tasks = route.source == TASK_SOURCE
    fits = route.queue is None or to_url or of_tasks
    expected = f'none: it is for tasks (source = "{TASK_SOURCE}") and for handlers that are a URL'
    rules.append((fits, f"{at}.queue", route.queue or "", expected))
    fits, expected = route.url is None or of_tasks, f'none: it is for tasks (source = "{TASK_SOURCE}")'
    rules.append((fits, f"{at}.url", route.url or "", expected))
    rules += _match_rules(at, route)
    window, kept = route.dedupe_window, settings.ledger.retention
    fits = window is None or 0 < window <= kept
    rules.append((fits, f"{at}.dedupe_window", window or 0, f"up to {kept}, as long as [ledger] retention"))
    return rules


def _match_rules(at: str, route: Route) -> list[_Rule]:
    rules: list[_Rule] = []
    match, words = route.match or {}, COLLECTIONS.get(route.source, ())
    named = route.match is None or bool(match)
    rules.append((named, f"{at}.match", "", 'labels, such as { event = "push" }; without match, a route takes all'))
    for name, wanted in match.items():
        several = (wanted,) if isinstance(wanted, str) else wanted
        right = bool(several) and all(text and "*" not in text[:-1] and text.isprintable() for text in several)
        expected = 'a text, a text with * at its end for all that begin so, or a list of these: ["opened", "closed"]'
        rules.append((right, f"{at}.match.{name}", ", ".join(several), expected))
    for name in ("collection", "operation"):
        given = getattr(route, name)
        rules.append(
            (given is None or name not in match, f"{at}.{name}", given, f"none beside match, which has {name}")
        )
    collection = route.conditions.get("collection", "")
    known = not isinstance(collection, str) or collection in ("", *words) or collection.endswith("*") or not words
    key = "collection" if route.collection else "match.collection"
    rules.append((known, f"{at}.{key}", collection, f"one of: {', '.join(words)}"))
    return rules


def _queue_rules(settings: Settings) -> list[_Rule]:
    worker, rules = settings.worker, list[_Rule]()
    for name, queue in worker.queues.items():
        at = f"worker.queues.{name}"
        fits = bool(_SOURCE_NAME.fullmatch(name)) and len(queue_tube(settings, name)) <= MAX_TUBE
        rules += [
            (fits, at, name, f"a name of 1 to 63 of a-z 0-9 and -, not - first; {MAX_TUBE} characters with its tube's"),
            (queue.weight <= MAX_WEIGHT, f"{at}.weight", queue.weight, f"1 to {MAX_WEIGHT}"),
        ]
    enough = worker.kept < worker.processes or not worker.kept
    expected = f"more than the {worker.kept} that [worker.queues] keep: the others need at least one"
    return [*rules, (enough, "worker.processes", worker.processes, expected)]


def _unknown_queues(settings: Settings, text: str) -> Iterator[str]:
    """The mistakes of sources that name a queue which is not there: the pool's, as intake needs no [worker.queues]."""
    known = (MAIN_QUEUE, *settings.worker.queues)
    for name, source in settings.sources.items():
        if source.queue and source.queue not in known:
            key = ["sources", name, "queue"]
            expected = f"a queue of [worker.queues]: {', '.join(dict.fromkeys(known))}"
            where = mistakes.located(text, key)
            yield f'{settings.file}: {place(key)} = "{source.queue}": expected {expected}{where}'


def queue_tube(settings: Settings, queue: str) -> str:
    """The tube of a queue of [worker.queues]: that of "default" is [queue] tube."""
    base = str(settings.queue.tube)
    return base if queue in ("", MAIN_QUEUE) else f"{queue_prefix(base)}{queue}"


def queue_prefix(base: str) -> str:
    """How the tubes of queues begin; `base` is [queue] tube."""
    return f"{base}.queue."


def source_tube(settings: Settings, name: str) -> str:
    """The tube that the pings of this source are put into: that of its `queue`, or else [queue] tube."""
    return queue_tube(settings, settings.sources[name].queue if name in settings.sources else "")


def secret_files(settings: Settings) -> list[str]:
    """The keys of the secret files that intake reads, such as "sources.github.secrets_file"."""
    return [
        f"sources.{name}.{key}"
        for name, source in settings.sources.items()
        for key in _SOURCE_FILES
        if getattr(source, key) is not None
    ]


def installed_file(name: str, settings: Settings) -> Path:
    """A file of conf/: beside the settings file, else in the source tree, else as pip installed it.

    Raises SettingsError if there is none.
    """
    places = [
        Path(settings.file).resolve().parent / name,
        Path(__file__).parent.parent / "conf" / name,
        # setup.py installs it beside our modules, which works in all of pip's layouts
        Path(__file__).parent / "conf" / name,
    ]
    for path in places:
        if path.is_file():
            return path
    raise SettingsError(f"{name} is missing; looked at: {', '.join(map(str, places))}")
