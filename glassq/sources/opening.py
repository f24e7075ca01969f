"""Makes sources out of the sections [sources.NAME] of glassq.toml. What would refuse every ping is refused here."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.mistakes import place
from glassq.settings import SourceSettings, find_modules_beside, source_tube, toml_value
from glassq.sources import challenges, mirror
from glassq.sources.admission import AdmissionRules
from glassq.sources.generic import GENERIC
from glassq.sources.hook import HookSource
from glassq.sources.labels import Labels, is_secret
from glassq.sources.places import parse_spec
from glassq.sources.presets import PRESETS
from glassq.sources.schemes.base import NoDocuments, SchemeConfig, UnusableKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.settings import Settings
    from glassq.sources.base import Source
    from glassq.sources.fetched_keys import FetchedKeys
    from glassq.sources.presets.preset import Preset
    from glassq.sources.schemes.base import Documents

_LABEL = re.compile(r"[a-z][a-z0-9_]{0,31}")
_OWN = ("event", "action", "event_id")
# A word of a path that needs no escape.
_WORD = re.compile(r"[A-Za-z0-9._~-]+")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
# Keys that belong to every kind.
_COMMON = frozenset(
    {"kind", "path_token_file", "allow", "url", "max_body", "content_types", "keep", "labels", "dedupe", "queue", *_OWN}
)
# The files of secrets of which a scheme has one.
_SECRETS = ("secrets_file", "verify_tokens_file")


def open_sources(settings: Settings, documents: Documents | None = None) -> list[Source]:
    """The sources that the settings name.

    `documents` fetches certificates and keys for kinds that need them; None: what `key_documents` makes. Raises
    SettingsError if a source cannot be used, or a secret cannot be read.
    """
    documents = documents or key_documents(settings)
    return [open_source(settings, name, documents) for name in settings.sources]


def preset_of(settings: Settings, name: str) -> Preset:
    """The preset of the source that has this name; of a general kind, one made of its section. Raises SettingsError."""
    section = settings.sources[name]
    kind = section.kind_of(name)
    if kind in PRESETS:
        return PRESETS[kind]
    if kind not in GENERIC:
        close = difflib.get_close_matches(kind, [*PRESETS, *GENERIC], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise _refused(settings, name, "kind", kind, f"expected a known kind, or one of: {', '.join(GENERIC)}{hint}")
    try:
        return GENERIC[kind](section)
    except UnusableKey as error:
        raise _refused(settings, name, error.key, getattr(section, error.key), error.why) from None


def key_documents(settings: Settings) -> FetchedKeys | None:
    """What fetches certificates and keys, if a kind among the sources needs any. Raises SettingsError."""
    if not any(preset_of(settings, name).requires_network for name in settings.sources):
        return None
    # it brings a client for HTTP, which other settings need not load
    from glassq.sources.fetched_keys import FetchedKeys
    from glassq.sources.key_directory import KeyDirectory

    cache = settings.intake.key_cache
    return FetchedKeys(KeyDirectory(Path(cache)) if cache else None)


def open_source(settings: Settings, name: str, documents: Documents | None = None) -> Source:
    """The source that has this name. Without `documents` nothing is fetched for it. Raises SettingsError."""
    section, preset = settings.sources[name], preset_of(settings, name)
    _check_keys(settings, name, preset)
    given = given_to_scheme(settings, name, preset, documents or NoDocuments())
    if section.custom:
        find_modules_beside(settings)
    try:
        verifier = preset.scheme.prepare(given)
    except UnusableKey as error:
        if error.key.endswith("_file"):
            raise settings.refused(f"sources.{name}.{error.key}", error.why) from None
        raise _refused(settings, name, error.key, getattr(section, error.key, None), error.why) from None
    verify_tokens = _lines(settings, name, "verify_token_file")
    return HookSource(
        name=name,
        kind=section.kind_of(name),
        tube=source_tube(settings, name),
        max_body=section.max_body or preset.max_body or settings.intake.max_body,
        methods=frozenset(preset.methods) | challenges.methods(preset.challenges),
        accept=preset.accept,
        secrets=len(given.secrets),
        admission=_admission(settings, name, preset),
        verifier=verifier,
        labels=labels_of(settings, name),
        challenges=preset.challenges,
        keys=challenges.ChallengeKeys(
            [secret.encode() for secret in given.secrets], [token.encode() for token in verify_tokens]
        ),
    )


def given_to_scheme(settings: Settings, name: str, preset: Preset, documents: Documents) -> SchemeConfig:
    """What the section gives to its scheme. Raises SettingsError where a secret cannot be read."""
    section = settings.sources[name]
    tolerance = preset.tolerance if section.tolerance is None else float(section.tolerance)
    secrets = _secrets(settings, name, preset)
    return SchemeConfig(secrets, (section.url or "").rstrip("/"), tolerance, section, documents)


def _check_keys(settings: Settings, name: str, preset: Preset) -> None:
    """Raises SettingsError for a key that is missing, and for one that does nothing."""
    section, scheme, default = settings.sources[name], preset.scheme, SourceSettings()
    for key in scheme.needs:
        if not getattr(section, key):
            names = ["sources", name, key]
            raise SettingsError(f"{settings.file}: missing key {place(names)}: kind {preset.name} needs it")
    known = _COMMON | {*scheme.needs, *scheme.may}
    known |= {"tolerance"} if scheme.signs_time else set()
    known |= {"verify_token_file"} if "hub" in preset.challenges else set()
    for key in section.__struct_fields__:
        value = getattr(section, key)
        if value != getattr(default, key) and key not in known:
            belongs = [each for each in (*scheme.needs, *scheme.may) if each not in _COMMON]
            expected = f"expected no such key: kind {preset.name} takes {', '.join(belongs) or 'none of its own'}"
            raise _refused(settings, name, key, value, expected)


def _secrets(settings: Settings, name: str, preset: Preset) -> tuple[str, ...]:
    keys = {*preset.scheme.needs, *preset.scheme.may}
    key = next((each for each in _SECRETS if each in keys), None)
    return _lines(settings, name, key) if key else ()


def _lines(settings: Settings, name: str, key: str) -> tuple[str, ...]:
    return tuple(settings.secret(f"sources.{name}.{key}")) if getattr(settings.sources[name], key) else ()


def _admission(settings: Settings, name: str, preset: Preset) -> AdmissionRules:
    section = settings.sources[name]
    words = _lines(settings, name, "path_token_file")
    if not all(map(_WORD.fullmatch, words)):
        why = "holds a word that cannot stand in a path: expected A-Z a-z 0-9 . _ ~ and -"
        raise settings.refused(f"sources.{name}.path_token_file", why)
    types = preset.content_types if section.content_types is None else section.content_types
    return AdmissionRules(
        words=words,
        networks=section.allow,
        content_types=[each.lower() for each in types],
        check_type=mirror.check_content_type if preset.name == "mirror" and section.content_types is None else None,
    )


def labels_of(settings: Settings, name: str) -> Labels:
    """What is read of the pings of this source; no secret is needed for it. Raises SettingsError."""
    section, preset = settings.sources[name], preset_of(settings, name)
    texts = dict(preset.labels)
    for key in _OWN:
        own = getattr(section, key)
        texts[key] = getattr(preset, key) if own is None else own
        _check_place(settings, name, key, texts[key])
    for label, text in section.labels.items():
        if not _LABEL.fullmatch(label) or label in _OWN:
            expected = f"expected a label of a-z 0-9 and _, a letter first; {', '.join(_OWN)} are keys of the section"
            raise _refused(settings, f"{name}.labels", label, text, expected)
        _check_place(settings, f"{name}.labels", label, text)
        texts[label] = text
    dedupe = section.dedupe or ("event_id" if section.event_id and not preset.dedupe else preset.dedupe)
    if section.dedupe == "event_id" and not texts["event_id"]:
        raise _refused(settings, name, "dedupe", dedupe, f"expected event_id beside it: kind {preset.name} sends none")
    if dedupe not in ("event_id", "sha256"):
        del texts["event_id"]
    elif dedupe == "sha256" and section.dedupe is not None:
        texts["event_id"] = ""
    return Labels(texts, (*preset.keep, *_kept(settings, name)), digest=dedupe == "sha256")


def _check_place(settings: Settings, section: str, key: str, text: str) -> None:
    try:
        parse_spec(text)
    except ValueError as error:
        raise _refused(settings, section, key, text, str(error)) from None


def _kept(settings: Settings, name: str) -> Sequence[str]:
    kept = [each.lower() for each in settings.sources[name].keep]
    for each in kept:
        if not _HEADER.fullmatch(each.removesuffix("*")):
            raise _refused(settings, name, "keep", each, "expected names of headers")
        if is_secret(each):
            expected = "expected no signature, token or cookie: a delivery is kept where others may read it"
            raise _refused(settings, name, "keep", each, expected)
    return kept


def _refused(settings: Settings, section: str, key: str, value: object, why: str) -> SettingsError:
    names = [*f"sources.{section}".split("."), key]
    shown = "" if value is None else f" = {toml_value(value)}"
    return SettingsError(f"{settings.file}: {place(names)}{shown}: {why}")
