"""The settings as a whole: all that is wrong with them, and the settings as a document."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.daemons import check_web, check_worker
from glassq.database.plain import file_of
from glassq.errors import SettingsError
from glassq.mistakes import place
from glassq.operations.checks.systemctl import leaves_out_intake, listens_for_intake
from glassq.operations.routes import lacked_label, listing
from glassq.push.request import SOURCE
from glassq.queues import remarks
from glassq.settings import GlassSettings, route_secret_files, secret_files
from glassq.startcheck import Finding, found
from glassq.values import QueueUrl, is_postgres, without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings import Settings

# Keys whose URL may have a password.
_PLACES = (*(("queue", "url"), ("bodies", "url"), ("ledger", "url")), ("push", "names"), ("glass", "credentials"))


def problems(settings: Settings) -> list[str]:
    """All that is wrong, each once: one mistake does not hide the next.

    Both daemons are asked, in processes of their own, for all that they would refuse at their start.
    """
    findings = [Finding("database", problem=problem) for problem in option_problems(settings)]
    findings += [found("secret", partial(check_secret, settings, key)) for key in secrets_in_use(settings)]
    findings += check_worker(settings)
    never = (f"{settings.file}: {row.place}: {row.never}" for row in listing(settings) if row.never)
    findings += [Finding("route", problem=problem) for problem in (*never, *_without_key(settings))]
    if takes_pings(settings) and not leaves_out_intake():
        findings += [*check_web(settings), *(Finding("address", problem=problem) for problem in _refused(settings))]
    return list(dict.fromkeys(finding.problem for finding in findings if finding.problem))


def option_problems(settings: Settings) -> Iterator[str]:
    """What libpq would refuse, or ignore, of the URLs of databases; each URL once, with the first key that has it."""
    for url, key in _databases(settings).items():
        try:
            from glassq.database.libpq import amiss
        except SettingsError as error:
            yield str(error)
            return
        yield from (f"{settings.file}: {key}: {problem}" for problem in amiss(url))


def database_remarks(settings: Settings) -> Iterator[str]:
    """What libpq leaves out in silence, which may be meant so."""
    for url, key in _databases(settings).items():
        try:
            from glassq.database.libpq import default_passfile_ignored, why_ignored
        except SettingsError:
            return
        if passfile := default_passfile_ignored(url):
            yield f"{key} names no passfile, and {passfile}: {why_ignored(passfile)}"


def path_remarks(settings: Settings) -> Iterator[str]:
    """SQLite files that each program would look for in another place: three slashes are easily written for four."""
    for section, key in (("ledger", "url"), ("push", "names")):
        values = getattr(settings, section)
        file = file_of(getattr(values, key)) if values is not None else None
        if file is not None and not file.is_absolute():
            yield (
                f'{settings.file}: {place([section, key])} = "{getattr(values, key)}": this path begins where each '
                "program is started; four slashes make it absolute: sqlite:////PATH"
            )


def engine_remarks(settings: Settings) -> Iterator[str]:
    """What the settings ask of the queue's engine that it cannot do, or what it will cost."""
    try:
        yield from remarks(settings)
    except SettingsError:
        # its library is missing, and whoever needs it says so
        return


def _databases(settings: Settings) -> dict[str, str]:
    """The PostgreSQL databases, with the first key that names each."""
    found: dict[str, str] = {}
    for section, key in _PLACES:
        values = getattr(settings, section)
        url = getattr(values, key) if values is not None else ""
        if is_postgres(url):
            found.setdefault(url.whole if isinstance(url, QueueUrl) else str(url), place([section, key]))
    return found


def _without_key(settings: Settings) -> Iterator[str]:
    """Limits by a label that no delivery of the route has: they would limit nothing."""
    for row in listing(settings):
        key = row.route.concurrency_by
        if key is not None and (lacks := lacked_label(settings, row.route, [key.label])):
            yield f'{settings.file}: {row.place} concurrency_by = "{key}": {lacks}'


def takes_pings(settings: Settings) -> bool:
    """Whether glassq-web has something to do with these settings."""
    return bool(settings.sources) or any(route.source != SOURCE for route in settings.routes)


def works_glass(settings: Settings) -> bool:
    """Whether a route leads to a handler for Glass."""
    return any(name.startswith("glassq.glass.") for route in settings.routes for name in route.handlers)


def secrets_in_use(settings: Settings) -> list[str]:
    """The keys of the secret files that are in use: a default counts once something needs it."""
    needed = bool(settings.glass.client_id) or works_glass(settings)
    names = ("client_secret_file", "credentials_key_file")
    changed = [name for name in names if getattr(settings.glass, name) != getattr(GlassSettings(), name)]
    return (
        secret_files(settings)
        + route_secret_files(settings)
        + [f"glass.{name}" for name in names if needed or name in changed]
    )


def check_secret(settings: Settings, key: str) -> None:
    """Reads a secret file as the program that needs it does. Raises SettingsError."""
    if key == "glass.client_secret_file":
        from glassq.glass.google_files import client_secret

        client_secret(settings)
    elif key == "glass.credentials_key_file":
        from glassq.glass.credentials import CredentialStore

        CredentialStore.open(settings)
    else:
        settings.secret(key)


def check_push(settings: Settings) -> None:
    """Reads queue.yaml, where there are push queues. Raises SettingsError."""
    from glassq.push import queue_yaml

    if settings.push is not None:
        queue_yaml.load(settings.push.queue_yaml, targets=settings.push.targets)


def document(settings: Settings) -> Any:
    """The settings as plain values: durations in seconds, sizes in bytes, secrets as the paths of their files."""
    plain = msgspec.to_builtins(settings, enc_hook=_plain)
    del plain["ignored"], plain["outdated"], plain["unset"]
    for section, key in _PLACES:
        if plain[section] is not None:
            plain[section][key] = without_password(plain[section][key])
    return plain


def _refused(settings: Settings) -> list[str]:
    """Where glassq-web cannot listen. An address that is in use is most often in use by glassq-web itself."""
    # gunicorn takes a while to load.
    from glassq.intake.listen import refusal, unusable

    if listens_for_intake():
        return []
    return [refusal(settings, bind, error) for bind, error in unusable(settings) if error.errno != errno.EADDRINUSE]


def _plain(value: Any) -> Any:
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"cannot be JSON: {type(value).__name__}")


# What is no mistake, but good to know.
REMARKS = (path_remarks, database_remarks, engine_remarks)
