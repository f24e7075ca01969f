"""Reads glassq.toml: from a file to Settings, or to one error that names the file, the key and what is expected."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from glassq import mistakes
from glassq.edited import read_text
from glassq.errors import SettingsError, UnreadableText
from glassq.outdated import as_written, remarks, renewed
from glassq.settings.rules import check_together
from glassq.settings.settings import Settings
from glassq.systemd import credential_name
from glassq.values import SecretFile, Step

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from glassq.settings.sections import PushSettings

DEFAULT_FILE = Path("/etc/glassq/glassq.toml")

# The sections that each program reads. Mistakes in other sections must not stop it.
INTAKE = frozenset({"queue", "intake", "bodies", "sources", "metrics", "log"})
POOL = frozenset(
    {
        "queue",
        "bodies",
        "worker",
        "routes",
        "handlers",
        "schedule",
        "push",
        "glass",
        "storage",
        "ledger",
        "metrics",
        "log",
    }
)
TASKS = frozenset({"queue", "push"})
TASK_SERVER = TASKS | {"tasks", "metrics", "log"}
# Keys that every program needs, whatever section they are in: whoever puts a job sets its lease (`Settings.lease`).
_SHARED = {"worker": ("deadline",)}
_PACKAGE = Path(__file__).parent.parent
_NO_KEYS = ("file", "ignored", "outdated", "unset")
SECTIONS = frozenset(Settings.__struct_fields__) - frozenset(_NO_KEYS)
# msgspec looks at a class when it is first used, and two threads that are first at once crash the process: so it is
# used here, where Python lets in one.
msgspec.json.Decoder(Settings)


def file_of(path: str | None, environ: Mapping[str, str]) -> Path:
    """The settings file: `path`, else that of GLASSQ_CONFIG, else /etc/glassq/glassq.toml."""
    return Path(path or environ.get("GLASSQ_CONFIG") or DEFAULT_FILE)


def load(
    path: str | None, environ: Mapping[str, str], uses: Collection[str] | None = None, *, queue_url: str = ""
) -> Settings:
    """Settings from the file that `file_of` names.

    `uses` are the sections that must be right; None: all. In paths of secret files, a leading $CREDENTIALS_DIRECTORY
    (of systemd's LoadCredential) is replaced. With `queue_url` they are as if [queue] url were this one: what lives in
    the queue's database goes with it. Raises SettingsError.
    """
    file = file_of(path, environ)
    try:
        text = read_text(file, "glassq.toml")
    except UnreadableText as error:
        unread = isinstance(error.__cause__, OSError) and not path
        hint = "; name another with --config or GLASSQ_CONFIG" if unread else ""
        raise SettingsError(f"{file}: {error}{hint}") from None
    return parse(text, str(file), environ.get("CREDENTIALS_DIRECTORY"), uses, queue_url=queue_url)


def parse(
    text: str,
    file: str,
    credentials_directory: str | None = None,
    uses: Collection[str] | None = None,
    *,
    queue_url: str = "",
) -> Settings:
    """Settings from the text of a glassq.toml; `file` is its name in messages. Otherwise like `load`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: {mistakes.syntax(error, text, Settings)}") from None
    for name in _NO_KEYS:
        if name in document:
            raise SettingsError(f"{file}: unknown key {name}{mistakes.located(text, [name])}")
    if queue_url:
        # the syncer is that of the file's own beanstalkd
        document["queue"] = {**document.get("queue", {}), "url": queue_url}
        document["queue"].pop("syncer", None)
    outdated = tuple(remarks(document, text, file))
    ignored = []
    for name in sorted(SECTIONS & document.keys() - set(SECTIONS if uses is None else uses)):
        try:
            _convert({name: document[name]}, text, file, credentials_directory)
        except SettingsError as error:
            ignored.append(str(error))
            document |= _usable(document, name, text, file)
    settings = _convert(document, text, file, credentials_directory)
    for key, mistake in check_together(settings, text):
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
        if kind is Step:
            return Step(value)
        # in the file, only a text can have the unit that a number needs; no kind accepts a NUL
        return kind(value if isinstance(value, str) else "\0")

    today = renewed(document, text, file)
    try:
        settings = msgspec.convert(today, Settings, dec_hook=custom)
    except msgspec.ValidationError as error:
        said = as_written(mistakes.value(error, text, today, Settings, custom), document, text)
        raise SettingsError(f"{file}: {said}") from None
    return msgspec.structs.replace(settings, file=file, push=settings.push and _beside(settings.push, file))


def _beside(push: PushSettings, file: str) -> PushSettings:
    """The section with its files: a relative path is taken from the directory of the settings file."""
    paths = {"queue_yaml": push.queue_yaml, "cron_yaml": push.cron_yaml}
    found = {key: str(Path(file).parent / path) for key, path in paths.items() if path}
    return msgspec.structs.replace(push, **found)


def _secret_file(value: object, credentials_directory: str | None) -> SecretFile:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected the path of a file that holds the secret")
    if not value.startswith("$CREDENTIALS_DIRECTORY/"):
        copy = credentials_directory and f"{credentials_directory}/{credential_name(value)}"
        return SecretFile(value, copy or "")
    if not credentials_directory:
        raise ValueError("expected systemd to set CREDENTIALS_DIRECTORY (LoadCredential= in the unit)")
    return SecretFile(value.replace("$CREDENTIALS_DIRECTORY", credentials_directory, 1))


def find_modules_beside(settings: Settings) -> None:
    """Has Python find modules beside the settings file, after all other places: handlers, classes of sources."""
    home = str(Path(settings.file).resolve().parent)
    if settings.file and home not in sys.path:
        sys.path.append(home)


def installed_file(name: str, settings: Settings) -> Path:
    """A file of conf/: beside the settings file, else in the source tree, else as pip installed it.

    Raises SettingsError if there is none.
    """
    places = [
        Path(settings.file).resolve().parent / name,
        _PACKAGE.parent / "conf" / name,
        # setup.py installs it beside our modules, which works in all of pip's layouts
        _PACKAGE / "conf" / name,
    ]
    for path in places:
        if path.is_file():
            return path
    raise SettingsError(f"{name} is missing; looked at: {', '.join(map(str, places))}")
