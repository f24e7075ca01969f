from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassq.database.engine import parse_url, sqlite_file
from glassq.database.plain import file_of
from glassq.errors import SettingsError
from glassq.settings import (
    DEFAULT_FILE,
    INTAKE,
    POOL,
    TASKS,
    Settings,
    as_toml,
    installed_file,
    load,
    parse,
    remarks_on_shared,
    source_tube,
    toml_value,
)
from glassq.values import Address, Bind, Duration, Size, url_path, without_password
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = "[sources.mirror]\n"
ROUTE = '[[routes]]\nsource = "mirror"\nhandler = "m:f"\n'


def refused(text: str, credentials: str | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(text, "my.toml", credentials)
    return str(caught.value)


def at(section: str, line: str) -> str:
    return f"[{section}]\n{line}\n"


# What is written, and what the message says about it, word for word after the file's name.
MISTAKES = [
    # a unit that is missing, unknown, or not ASCII
    (at("queue", "ttr = 120"), '[queue] ttr = 120: expected a duration such as "500ms", "30s", "2m", "12h" or "9d"'),
    (at("queue", "ttr = inf"), "[queue] ttr = null: expected a duration"),
    (at("queue", 'ttr = "2 m"'), '[queue] ttr = "2 m": expected a duration'),
    (at("queue", 'ttr = "-2m"'), '[queue] ttr = "-2m": expected a duration'),
    (at("queue", 'ttr = "2w"'), '[queue] ttr = "2w": expected a duration'),
    (at("queue", 'ttr = "２m"'), '[queue] ttr = "２m": expected a duration'),
    (at("queue", f'ttr = "{"9" * 400}d"'), "expected a duration"),
    (at("worker", "deadline = true"), "[worker] deadline = true: expected a duration"),
    (at("worker", "deadline = 2026-01-31"), '[worker] deadline = "2026-01-31": expected a duration'),
    (at("intake", "max_body = 16384"), '[intake] max_body = 16384: expected a size such as "512B"'),
    (at("intake", 'max_body = "16KB"'), '[intake] max_body = "16KB": expected a size'),
    (at("intake", f'max_body = "{"9" * 5000}B"'), "expected a size"),
    # numbers and words
    (at("worker", "processes = 0"), "[worker] processes = 0: expected a whole number, at least 1"),
    (
        at("worker", 'processes = "four"'),
        '[worker] processes = "four": expected a whole number, found the text "four" (line 2)',
    ),
    (at("worker", 'processes = "4"'), 'found the text "4"; write it without quotes (line 2)'),
    (at("worker", "processes = true"), "[worker] processes = true: expected a whole number, found true"),
    (at("worker", "processes = 4.5"), "[worker] processes = 4.5: expected a whole number, found the number 4.5"),
    (at("worker", "processes = [4]"), "[worker] processes = [4]: expected a whole number, found a list"),
    (
        at("ledger", 'keep_bodies = "yes"'),
        '[ledger] keep_bodies = "yes": expected true or false, found the text "yes"',
    ),
    (at("ledger", 'keep_bodies = "true"'), 'found the text "true"; write it without quotes'),
    (at("glass", "client_id = 7"), "[glass] client_id = 7: expected a text in quotes, found the number 7"),
    (at("log", 'level = "loud"'), '[log] level = "loud": expected one of: debug, info, warning, error'),
    (at("log", 'level = "Debug"'), "expected one of: debug, info, warning, error; did you mean debug?"),
    (at("glass", 'on_delete = "ask"'), '[glass] on_delete = "ask": expected one of: keep, delete'),
    # addresses
    (at("queue", 'url = "localhost:11300"'), '[queue] url = "localhost:11300": expected "beanstalk://HOST:PORT" or'),
    (at("queue", 'url = "beanstalk://h"'), '[queue] url = "beanstalk://h": expected "beanstalk://HOST:PORT" or'),
    (at("queue", 'url = "beanstalk://h:99999"'), 'expected "beanstalk://HOST:PORT" or'),
    (at("queue", 'url = "beanstalk://u:p@h:1"'), 'expected "beanstalk://HOST:PORT" or'),
    (at("queue", 'url = "beanstalk:///run/#1.sock"'), "in a path ? is written %3F, and # is %23"),
    (at("queue", 'url = "beanstalk:///run/a\\nb.sock"'), 'expected "beanstalk://HOST:PORT" or'),
    (at("queue", 'url = "beanstalk:///run/%00.sock"'), 'expected "beanstalk://HOST:PORT" or'),
    (at("storage", 'url = "file:///photos?"'), "in a path ? is written %3F, and # is %23"),
    (at("intake", f'bind = "unix:/{"x" * 120}"'), "expected a socket whose path has at most 10"),
    (at("queue", 'url = "beanstalk:///"'), 'expected "beanstalk://HOST:PORT" or'),
    (at("queue", 'url = "redis://h:1"'), 'expected "beanstalk://HOST:PORT" or'),
    (at("queue", "url = 11300"), '[queue] url = 11300: expected "beanstalk://HOST:PORT" or'),
    (at("queue", 'syncer = "h"'), '[queue] syncer = "h": expected "unix:/path/of/a.sock", "HOST:PORT", "none"'),
    (at("queue", 'syncer = "h:0"'), '[queue] syncer = "h:0": expected "unix:/path/of/a.sock", "HOST:PORT", "none"'),
    (at("queue", 'syncer = "fd://3"'), '[queue] syncer = "fd://3": expected "unix:/path/of/a.sock", "HOST:PORT"'),
    (at("queue", 'syncer = "unix:a.sock"'), 'expected "unix:/path/of/a.sock", "HOST:PORT", "none"'),
    (at("queue", 'syncer = "/a\\u0000"'), 'expected "unix:/path/of/a.sock", "HOST:PORT", "none"'),
    (at("queue", "syncer = 1"), 'expected "unix:/path/of/a.sock", "HOST:PORT", "none"'),
    (at("queue", f'syncer = "/{"x" * 120}"'), "expected a socket whose path has at most 10"),
    (at("queue", 'tube = "a b"'), '[queue] tube = "a b": expected a tube name: 1 to 200 of'),
    (at("queue", 'tube = "-a"'), '[queue] tube = "-a": expected a tube name'),
    (at("queue", 'tube = ""'), '[queue] tube = "": expected a tube name'),
    (at("queue", 'tube = "a\\r\\ndelete 1"'), "expected a tube name"),
    (at("intake", 'bind = "8080"'), '[intake] bind = "8080": expected "HOST:PORT", "unix:/path/of/a.sock" or "fd://N"'),
    (at("intake", 'bind = "h:65536"'), '[intake] bind = "h:65536": expected "HOST:PORT"'),
    (at("glass", 'api_url = "http://example.com/"'), 'expected "https://HOST/PATH" (plain http only to 127.0.0.1'),
    (at("glass", 'token_url = "ftp://127.0.0.1/"'), 'expected "https://HOST/PATH"'),
    (
        at("storage", 'url = "s3://bucket"'),
        '[storage] url = "s3://bucket": expected "gs://BUCKET" or "file:///DIRECTORY"',
    ),
    (at("storage", 'url = "gs://bucket/folder"'), 'expected "gs://BUCKET"'),
    (at("storage", 'url = "file://host/dir"'), 'expected "gs://BUCKET" or "file:///DIRECTORY"'),
    # keys and sections
    (at("queue", 'tubes = "a"'), "unknown key [queue] tubes; did you mean tube?"),
    (at("worker", "colour = 1"), "unknown key [worker] colour; expected one of: processes, lane_processes"),
    (
        at("sources.mirror", 'verify_tokens = "x"'),
        "unknown key [sources.mirror] verify_tokens; did you mean verify_tok",
    ),
    ("[workers]\nprocesses = 4\n", "unknown key workers; did you mean worker?"),
    ('file = "x"\n', "unknown key file"),
    ("queue = 5\n", "queue = 5: expected a section in brackets, such as [queue], found the number 5"),
    ("[routes]\n", "routes = {}: expected sections in double brackets, such as [[routes]], found a section"),
    (
        at("push.targets", 'default = "http://h"\nmail = "h"'),
        '[push.targets] mail = "h": expected "http://HOST',
    ),
    (at("sources.Mirror", ""), '[sources] Mirror = "": expected a name of 1 to 63 of a-z 0-9 and -'),
    (at("sources.push", 'kind = "hmac"'), '[sources] push = "hmac": expected a name of'),
    (at("sources.a", "\n[sources.b]\nhash = 'md5'"), '[sources.b] hash = "md5": expected one of: sha1, sha256, sha512'),
    (at("sources.a", 'max_body = "26MiB"'), '[sources.a] max_body = "26MiB": expected 1B to 25MiB'),
    (at("sources.a", 'allow = ["x"]'), '[sources.a] allow, entry 1 = "x": expected an address or a network such as'),
    (at("sources.a", "labels = { ref = 5 }"), "[sources.a.labels] ref = 5: expected a text in quotes"),
    ('[[routes]]\nsource = "mirror"\n', "missing key [[routes]] (1st) handler"),
    (SOURCE + ROUTE.replace("mirror", "miror"), '[[routes]] (1st) source = "miror": expected one of: mirror'),
    (SOURCE + ROUTE.replace("mirror", "miror"), "; did you mean mirror?"),
    (
        ROUTE + 'collection = "timline"\n',
        '[[routes]] (1st) collection = "timline": expected one of: timeline, locations, settings',
    ),
    (
        ROUTE + "match = {}\n",
        '[[routes]] (1st) match = "": expected labels, such as { event = "push" }; without match, a route',
    ),
    (
        ROUTE + "match = {event = 5}\n",
        "[[routes]] (1st) match.event = 5: expected a text in quotes, found the number 5",
    ),
    (
        ROUTE + "match = {event = [5]}\n",
        "[[routes]] (1st) match.event, entry 1 = 5: expected a text in quotes, found the number 5",
    ),
    (ROUTE + 'match = "push"\n', '[[routes]] (1st) match = "push": expected a section in brackets'),
    (
        ROUTE + 'match = {event = ""}\n',
        '[[routes]] (1st) match.event = "": expected a text, a text with * at its end for',
    ),
    (
        ROUTE + "match = {event = []}\n",
        '[[routes]] (1st) match.event = "": expected a text, a text with * at its end for',
    ),
    (
        ROUTE + 'match = {event = ["a", "*.b"]}\n',
        '[[routes]] (1st) match.event = "a, *.b": expected a text, a text with *',
    ),
    (
        ROUTE + 'operation = "INSERT"\nmatch = {operation = "DELETE"}\n',
        '[[routes]] (1st) operation = "INSERT": expected none beside match, which has operation',
    ),
    (
        ROUTE + 'match = {collection = "timline"}\n',
        '[[routes]] (1st) match.collection = "timline": expected one of: timeline, locations, settings',
    ),
    ("[worker.queues.A_B]\n", '[worker.queues] A_B = "A_B": expected a name of 1 to 63 of a-z 0-9 and -, not - first'),
    ("[worker.queues.a]\nweight = 0\n", "[worker.queues.a] weight = 0: expected a whole number, at least 1"),
    ("[worker.queues.a]\nweight = 1001\n", '[worker.queues.a] weight = "1001": expected 1 to 1000'),
    ("[worker.queues.a]\nchildren = -1\n", "[worker.queues.a] children = -1: expected a whole number, at least 0"),
    ("[worker.queues.a]\nwieght = 1\n", "unknown key [worker.queues.a] wieght; did you mean weight?"),
    (
        "[worker]\nprocesses = 2\n[worker.queues.a]\nchildren = 1\n[worker.queues.default]\nchildren = 1\n",
        '[worker] processes = "2": expected more than the 2 that [worker.queues] keep: the others need at least one',
    ),
    (
        SOURCE + 'queue = "b"\n[worker.queues.a]\n',
        '[sources.mirror] queue = "b": expected a queue of [worker.queues]: default, a (line 2)',
    ),
    (
        ROUTE + '[[routes]]\nsource = "m"\nhandler = "m.f"\n',
        '[[routes]] (2nd) handler = "m.f": expected "package.module:f',
    ),
    (ROUTE + 'colection = "timeline"\n', "unknown key [[routes]] (1st) colection; did you mean collection?"),
    (
        ROUTE + 'queue = "q"\n',
        '[[routes]] (1st) queue = "q": expected none: it is for tasks (source = "push") and for handlers',
    ),
    (ROUTE + 'url = "/a"\n', '[[routes]] (1st) url = "/a": expected none: it is for tasks (source = "push")'),
    (
        ROUTE.replace("mirror", "push") + 'url = "a"\n',
        '[[routes]] (1st) url = "a": expected a path such as "/mail", or',
    ),
    (ROUTE.replace("mirror", "push") + 'url = "/a*b"\n', '[[routes]] (1st) url = "/a*b": expected a path such as'),
    (ROUTE.replace("mirror", "push") + 'url = "/a?b=c"\n', '[[routes]] (1st) url = "/a?b=c": expected a path such as'),
    (ROUTE.replace("mirror", "push") + 'url = "http://h/a"\n', "expected a path such as"),
    (ROUTE.replace("mirror", "push") + 'url = ""\n', '[[routes]] (1st) url = "": expected a path such as'),
    (ROUTE.replace("mirror", "push") + "url = 7\n", "[[routes]] (1st) url = 7: expected a path such as"),
    (
        at("push", 'deferred = "app.tasks"'),
        '[push] deferred = "app.tasks": expected a list in brackets, such as ["one", "two"], found the text',
    ),
    (
        at("push", 'deferred = ["app.tasks:f"]'),
        '"app.tasks:f": expected the full name of a module, such as "app.tasks"',
    ),
    (at("push", 'deferred = ["app.*"]'), '"app.*": expected the full name of a module'),
    (at("push", 'deferred = [".tasks"]'), '".tasks": expected the full name of a module'),
    (at("push", 'deferred = ["a..b"]'), '"a..b": expected the full name of a module'),
    (at("push", 'deferred = [""]'), '"": expected the full name of a module'),
    (at("push", 'deferred = ["__main__"]'), '"__main__": expected the full name of a module'),
    (at("push", "deferred = [7]"), "7: expected the full name of a module"),
    # secrets
    (at("sources.mirror", 'verify_tokens_file = ""'), "expected the path of a file that holds the secret"),
    (at("sources.mirror", 'verify_tokens_file = "a\\u0000b"'), "expected the path of a file that holds the secret"),
    (at("glass", 'client_secret_file = "$CREDENTIALS_DIRECTORY/s"'), "expected systemd to set CREDENTIALS_DIRECTORY"),
    # values that do not fit each other, or what stands behind them
    (at("worker", 'grace = "10m"'), '[worker] grace = "10m": expected shorter than deadline'),
    (at("worker", 'deadline = "0s"'), '[worker] grace = "30s": expected shorter than deadline'),
    (at("worker", 'backoff = "500ms"'), '[worker] backoff = "500ms": expected at least 1s'),
    (at("worker", 'backoff_cap = "10s"'), '[worker] backoff_cap = "10s": expected at least backoff'),
    (at("queue", 'ttr = "4s"'), '[queue] ttr = "4s": expected whole seconds, at least 5s'),
    (at("queue", 'ttr = "5500ms"'), '[queue] ttr = "5500ms": expected whole seconds, at least 5s'),
    (at("queue", 'timeout = "0s"'), '[queue] timeout = "0s": expected up to 1m, not 0'),
    (at("queue", 'connect_timeout = "2m"'), '[queue] connect_timeout = "2m": expected up to 1m, not 0'),
    (at("intake", 'max_body = "0B"'), '[intake] max_body = "0B": expected 1B to 25MiB'),
    (at("intake", 'max_body = "26MiB"'), '[intake] max_body = "26MiB": expected 1B to 25MiB'),
    (at("intake", 'spill_max = "24MiB"'), '[intake] spill_max = "24MiB": expected at least 25MiB'),
    (at("intake", 'memory_max = "1023KiB"'), '[intake] memory_max = "1023KiB": expected at least 1MiB'),
    (
        at("bodies", 'url = "ftp://bucket"'),
        '[bodies] url = "ftp://bucket": expected "file:///DIRECTORY", "postgres://...',
    ),
    (at("bodies", 'url = "s3://bucket/a//b"'), '[bodies] url = "s3://bucket/a//b": expected "file:///DIRECTORY"'),
    (at("ledger", 'url = "sqlit:////l.db"'), '[ledger] url = "sqlit:////l.db": expected sqlite, postgres, postgresql,'),
    (at("ledger", 'url = "/l.db"'), '[ledger] url = "/l.db": expected a database URL such as "sqlite:////var/lib'),
    (at("ledger", 'url = "me:pw@h/db"'), '[ledger] url = "***": expected a database URL'),
    (at("ledger", 'url = "mysq://me:pw@h/db"'), '[ledger] url = "mysq://me:***@h/db": expected sqlite'),
    (at("push", 'names = "sqlite:/n.db"'), '[push] names = "***": expected a database URL such as'),
    (at("intake", 'request_timeout = "900ms"'), '[intake] request_timeout = "900ms": expected at least 1s'),
    # a secret in place of its file's path
    (at("sources.mirror", 'verify_tokens_file = ["s3cret-1", "s3cret-2"]'), 'verify_tokens_file = "***": expected the'),
    # no TOML
    ("[queue\n", "is not TOML: "),
    ("[queue]\ntube = tube\n", "is not TOML: "),
]


@pytest.mark.parametrize(("text", "says"), MISTAKES)
def test_a_mistake_is_named_with_file_key_value_and_what_is_expected(text: str, says: str) -> None:
    message = refused(text)
    assert message.startswith("my.toml: ")
    assert says in message
    assert "\n" not in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("worker", at("worker", "proceses = 4")),
        # what no single key shows
        ("worker", at("worker", 'deadline = "1s"')),
        ("worker", "worker = 4\n"),
        ("routes", ROUTE.replace("mirror", "no body")),
        ("glass", at("glass", 'on_delete = "maybe"')),
    ],
)
def test_a_mistake_stops_only_who_reads_that_section(section: str, text: str) -> None:
    more = at("intake", "workers = 3")
    lenient = parse(text + more, "my.toml", uses=INTAKE)
    assert lenient.intake.workers == 3
    if "deadline" not in text:
        assert getattr(lenient, section) == getattr(Settings(), section)
    (why,) = lenient.ignored
    assert why == refused(text)
    with pytest.raises(SettingsError) as caught:
        parse(text, "my.toml", uses=POOL)
    assert str(caught.value) == why


def test_whoever_puts_jobs_gives_them_the_lease_of_the_pool_whatever_else_is_wrong_there() -> None:
    text = at("worker", 'deadline = "3h"\nproceses = 4')
    for uses in (INTAKE, TASKS):
        assert parse(text, "my.toml", uses=uses).lease == 3 * 3600 + 30


def test_keys_of_the_last_release_are_taken_and_said_with_their_new_names() -> None:
    old = parse(
        at("intake", 'spool = "/s"\nspool_max = "2MiB"\nspool_min_free = "1B"\nrequire_durable = true'), "my.toml"
    )
    new = parse(at("intake", 'journal = "/s"\njournal_max = "2MiB"\njournal_min_free = "1B"'), "my.toml")
    assert old.intake == new.intake
    assert new.outdated == ()
    assert old.outdated == (
        "my.toml: [intake] spool is called journal now; the old name is taken until the next release (line 2)",
        "my.toml: [intake] spool_max is called journal_max now; the old name is taken until the next release (line 3)",
        "my.toml: [intake] spool_min_free is called journal_min_free now; the old name is taken until the next release"
        " (line 4)",
        "my.toml: [intake] require_durable is not needed any more, remove it: a ping is acknowledged only once it is"
        " proven to be on disk (line 5)",
    )


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            'journal_max = "1GiB"\nspool_max = "1GiB"',
            "[intake] spool_max is the old name of journal_max: expected only one of them (line 3)",
        ),
        (
            "require_durable = false",
            "[intake] require_durable: expected no such key: "
            "a ping is acknowledged only once it is proven to be on disk (line 2)",
        ),
        ('require_durable = "no"', "[intake] require_durable: expected no such key"),
        ('spool_max = "1"', '[intake] spool_max = "1": expected a size such as'),
        ("spool = 7", "[intake] spool = 7: expected a text in quotes, found the number 7 (line 2)"),
        ('acknowledge = "disk"', '[intake] acknowledge = "disk": expected one of: queue, journal (line 2)'),
    ],
)
def test_what_of_them_is_not_possible_is_refused_by_the_name_that_is_written(lines: str, says: str) -> None:
    assert says in refused(at("intake", lines))
    (why,) = parse(at("intake", lines), "my.toml", uses=POOL).ignored
    assert why == refused(at("intake", lines))


@pytest.mark.parametrize("text", [at("quee", "x = 1"), "[queue\n", 'ignored = ["x"]\n', 'file = "x"\n'])
def test_what_is_of_no_section_stops_all(text: str) -> None:
    for uses in (INTAKE, POOL):
        with pytest.raises(SettingsError):
            parse(text, "my.toml", uses=uses)


def test_an_empty_file_gives_the_defaults() -> None:
    assert parse("", "my.toml") == msgspec.structs.replace(Settings(), file="my.toml")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().queue.tube = "other"  # type: ignore[misc,assignment]


# -- which file -----------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str, str], str]:
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_a_named_file_wins_over_the_environment(written: Callable[[str, str], str]) -> None:
    named, other = written("a.toml", at("queue", 'tube = "a"')), written("b.toml", at("queue", 'tube = "b"'))
    assert load(named, {"GLASSQ_CONFIG": other}).queue.tube == "a"
    assert load(None, {"GLASSQ_CONFIG": other}).queue.tube == "b"
    assert load(named, {}).file == named


def test_without_a_name_it_is_the_one_in_etc() -> None:
    if DEFAULT_FILE.exists():
        assert load(None, {}).file == str(DEFAULT_FILE)
    else:
        with pytest.raises(
            SettingsError, match=r"^/etc/glassq/glassq.toml: cannot be read: .*--config or GLASSQ_CONFIG"
        ):
            load(None, {"GLASSQ_CONFIG": ""})


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml: cannot be read: No such file"):
        load(str(tmp_path / "nowhere.toml"), {})
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load(str(tmp_path), {})


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe[\x00")
    with pytest.raises(SettingsError, match=r"a\.toml: is not UTF-8 text but UTF-16: save it as UTF-8"):
        load(str(tmp_path / "a.toml"), {})


def test_what_an_editor_on_windows_adds_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b'\xef\xbb\xbf[queue]\r\ntube = "mine"\r\n')
    assert load(str(file), {}).queue.tube == "mine"


# -- secrets --------------------------------------------------------------------------------------------------------


def mirror(path: Path | str) -> Settings:
    return parse(at("sources.mirror", f'verify_tokens_file = "{path}"'), "my.toml")


KEY = "sources.mirror.verify_tokens_file"


def test_a_secret_file_holds_one_secret_per_line_and_comments(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("# old one, until May\n\n  first \r\nsecond#\n\n")
    assert mirror(tmp_path / "s").secret(KEY) == ["first", "second#"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty: expected one secret per line"),
        (b"\n # only this\n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        ("\u00a0\u200b\n".encode(), "the file is empty"),
        (b"s3cret\xff", "the file is not UTF-8 text (line 1, byte 7): save it as UTF-8"),
        ("s3cret".encode("utf-16"), "the file is not UTF-8 text but UTF-16: save it as UTF-8"),
        ("s3cret".encode("utf-16-le"), "the file is not UTF-8 text but UTF-16: save it as UTF-8"),
        ("a\ns3\u200bcret".encode(), "the file holds an invisible character (U+200B ZERO WIDTH SPACE) inside a secret"),
        (b"a" * (1 << 20), "the file is too large"),
    ],
)
def test_a_secret_file_without_a_secret_is_named_and_never_quoted(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        mirror(tmp_path / "s").secret(KEY)
    where = f'my.toml: [sources.mirror] verify_tokens_file = "{tmp_path / "s"}": {says}'
    assert str(caught.value).startswith(where)
    assert "s3cret" not in str(caught.value)


def test_a_secret_file_that_is_missing_or_a_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the file cannot be read: No such file"):
        mirror(tmp_path / "nowhere").secret(KEY)
    with pytest.raises(SettingsError, match="the file cannot be read: Is a directory"):
        mirror(tmp_path).secret(KEY)


def test_systemds_credentials_directory_is_filled_in(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("s3cret\n")
    file = tmp_path / "glassq.toml"
    file.write_text(at("sources.mirror", 'verify_tokens_file = "$CREDENTIALS_DIRECTORY/tokens"'))
    settings = load(str(file), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert settings.secret(KEY) == ["s3cret"]


def test_in_a_service_a_secret_is_read_from_systemds_copy_of_its_file(tmp_path: Path) -> None:
    hidden, credentials = tmp_path / "more+secrets" / "tokens", tmp_path / "credentials"
    file = tmp_path / "glassq.toml"
    file.write_text(at("sources.mirror", f'verify_tokens_file = "{hidden}"'))
    credentials.mkdir()
    settings = load(str(file), {"CREDENTIALS_DIRECTORY": str(credentials)})
    with pytest.raises(SettingsError, match="No such file or directory; systemd passes it on after: systemctl daemon-"):
        settings.secret(KEY)
    copy = credentials / str(hidden).replace("+", "++").replace("/", "+")
    copy.write_text("s3cret\n")
    assert settings.secret(KEY) == ["s3cret"]
    assert f'verify_tokens_file = "{hidden}"' in as_toml(settings)
    copy.write_text("# missing\n")
    with pytest.raises(SettingsError, match=f'"{re.escape(str(hidden))}": the file is missing$'):
        settings.secret(KEY)


def test_the_effective_settings_name_secret_files_and_hold_no_secret(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("s3cret\n")
    shown = as_toml(mirror(tmp_path / "s"))
    assert f'verify_tokens_file = "{tmp_path / "s"}"' in shown
    assert "s3cret" not in shown


# -- there and back -------------------------------------------------------------------------------------------------

durations = st.one_of(
    st.tuples(st.integers(0, 999_999_999), st.sampled_from(["ms", "s", "m", "h", "d"])).map(lambda p: f"{p[0]}{p[1]}"),
    st.tuples(st.integers(0, 999_999), st.integers(0, 999_999_999), st.sampled_from(["s", "m"])).map(
        lambda p: f"{p[0]}.{p[1]:09}{p[2]}"
    ),
)
sizes = st.tuples(st.integers(0, 10**9), st.sampled_from(["B", "KiB", "MiB", "GiB"])).map(lambda p: f"{p[0]}{p[1]}")
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(durations)
def test_a_duration_is_shown_as_it_could_be_written(text: str) -> None:
    assert Duration(str(Duration(text))) == Duration(text)


@given(sizes)
def test_a_size_is_shown_as_it_could_be_written(text: str) -> None:
    assert Size(str(Size(text))) == Size(text)


@pytest.mark.parametrize(
    "text", ["0s", "1ms", "700ms", "1s", "90s", "2m", "12h", "9d", "1000500ms", "1.5ms", "100d", "25h"]
)
def test_a_duration_keeps_its_value_and_the_usual_ones_their_form(text: str) -> None:
    assert Duration(str(Duration(text))) == Duration(text)
    if text != "1.5ms":
        assert str(Duration(text)) == text


@pytest.mark.parametrize(("text", "value"), [("1.5m", 90.0), ("700ms", 0.7), ("0.25s", 0.25), ("9d", 777_600.0)])
def test_a_duration_is_in_seconds(text: str, value: float) -> None:
    assert Duration(text) == value


@pytest.mark.parametrize("text", ["0B", "512B", "16KiB", "100MiB", "1GiB", "1025B"])
def test_a_size_keeps_the_form_it_is_written_in(text: str) -> None:
    assert str(Size(text)) == text


@hypothesis.settings(deadline=None)
@given(
    client=words,
    credentials=words,
    collection=st.none() | st.sampled_from(["timeline", "locations", "settings"]),
    processing=durations,
    attachment=sizes,
    bodies=st.booleans(),
    jobs=st.integers(1, 10**9),
)
def test_the_effective_settings_parse_back_to_the_same(
    client: str, credentials: str, collection: str | None, processing: str, attachment: str, bodies: bool, jobs: int
) -> None:
    document: dict[str, Any] = {
        "glass": {
            "client_id": client,
            "credentials": credentials,
            "processing_patience": processing,
            "max_attachment": attachment,
        },
        "intake": {"bind": "[::1]:8080"},
        "ledger": {"keep_bodies": bodies},
        "worker": {"max_jobs": jobs},
        "routes": [
            {"source": "mirror", "handler": "a.b:c"} | ({} if collection is None else {"collection": collection}),
            {"source": "push", "handler": "a.b:c", "queue": credentials, "url": "/a/*"},
            {"source": "schedule", "handler": "a.b:c"},
        ],
        "schedule": [{"name": "n", "cron": "@daily", "labels": {"a": "b"}, "body": client}],
        "push": {"deferred": ["a.b", "c"]},
        "tasks": {"workers": jobs},
        "notify": {"on_buried": "exec:/bin/tell on-call"},
        "sources": {"mirror": {"verify_tokens_file": '/a "b"\\c'}},
    }
    settings = parse(_toml(document), "my.toml")
    # what follows from the queue is written out
    assert parse(as_toml(settings), "my.toml") == msgspec.structs.replace(settings, unset=())
    assert "bodies.url" in settings.unset


def _toml(document: dict[str, Any]) -> str:
    """TOML for the test, written another way than by the code under test: every text with numeric escapes alone."""

    def value(item: object) -> str:
        if isinstance(item, dict):
            return "{" + ", ".join(f"{key} = {value(inner)}" for key, inner in item.items()) + "}"
        if isinstance(item, list):
            return "[" + ", ".join(map(value, item)) + "]"
        if isinstance(item, str):
            return '"' + "".join(f"\\U{ord(char):08x}" for char in item) + '"'
        return str(item).lower()

    return "".join(f"{key} = {value(item)}\n" for key, item in document.items())


def test_the_defaults_are_shown_with_every_key() -> None:
    shown = tomllib.loads(as_toml(Settings()))
    assert shown["queue"]["ttr"] == "2m"
    assert shown["worker"]["max_rss"] == "512MiB"
    assert shown["ledger"]["keep_bodies"] is True
    assert "sources" not in shown


# -- paths in URLs --------------------------------------------------------------------------------------------------

PATHS = [
    '/run/it\'s "my" #1 100%41? \\x/é',
    "/two\nlines/\x7f",
    os.fsdecode(b"/caf\xe9"),
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_written_into_urls_and_read_back(path: str) -> None:
    text = f'[queue]\nurl = "beanstalk://{url_path(path)}"\n[storage]\nurl = "file://{url_path(path)}"\n'
    settings = parse(text, "f")
    assert settings.queue.url.address == path
    assert settings.storage.url.directory == Path(path)
    ledger = parse_url(f"sqlite:///{url_path(path)}", "[ledger] url")
    assert (sqlite_file(ledger), file_of(f"sqlite:///{url_path(path)}")) == (Path(path), Path(path))


def test_a_path_that_was_written_as_it_is_still_means_that() -> None:
    text = '[queue]\nurl = "beanstalk:///run/my queue é/100%/s"\n[storage]\nurl = "file:///my photos/50% [x]"\n'
    settings = parse(text, "f")
    assert settings.queue.url.address == "/run/my queue é/100%/s"
    assert settings.storage.url.directory == Path("/my photos/50% [x]")
    assert sqlite_file(parse_url("sqlite:////my ledger #1/100%.db", "[ledger] url")) == Path("/my ledger #1/100%.db")


def test_a_queue_may_be_on_ipv6_and_photos_in_a_bucket() -> None:
    text = '[queue]\nurl = "beanstalk://[::1]:11300"\n[storage]\nurl = "gs://my-photos"\n'
    settings = parse(text, "f")
    assert settings.queue.url.address == ("::1", 11300)
    assert (settings.storage.url.bucket, settings.storage.url.directory) == ("my-photos", None)


@pytest.mark.parametrize("value", ['a "b" \\ c', "two\nlines\t\x00\x7f", "é #", 7, True, Size("16KiB")])
def test_a_value_is_written_as_toml_reads_it(value: object) -> None:
    read = tomllib.loads(f"key = {toml_value(value)}")["key"]
    assert read == (str(value) if isinstance(value, Size) else value)


# -- files of conf/ -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "syncer", "place"),
    [
        ("beanstalk:///run/q/bs.sock", "", "/run/q/syncer.sock"),
        ("beanstalk:///run/q%25/bs.sock", "", "/run/q%/syncer.sock"),
        ("beanstalk://127.0.0.1:11300", "", None),
        ("beanstalk:///run/q/bs.sock", "none", None),
        ("beanstalk://127.0.0.1:11300", "127.0.0.1:11301", ("127.0.0.1", 11301)),
        ("beanstalk://127.0.0.1:11300", "[::1]:11301", ("::1", 11301)),
        ("beanstalk://127.0.0.1:11300", "unix:/run/s", "/run/s"),
        ("beanstalk:///run/q/bs.sock", "/run/s", "/run/s"),
    ],
)
def test_the_syncer_is_beside_the_queues_socket_unless_it_is_named(url: str, syncer: str, place: object) -> None:
    settings = parse(at("queue", f'url = "{url}"\nsyncer = "{syncer}"'), "my.toml")
    assert settings.queue.syncer_address == place


def test_a_file_beside_the_settings_wins_over_the_one_of_the_source_tree(tmp_path: Path) -> None:
    settings = parse("", str(tmp_path / "glassq.toml"))
    assert installed_file("gunicorn.conf.py", settings) == ROOT / "conf" / "gunicorn.conf.py"
    (tmp_path / "gunicorn.conf.py").write_text("")
    assert installed_file("gunicorn.conf.py", settings) == tmp_path / "gunicorn.conf.py"


def test_a_file_that_is_nowhere_is_named_with_all_places(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"missing\.conf is missing; looked at: {tmp_path}/missing\.conf, "):
        installed_file("missing.conf", parse("", str(tmp_path / "glassq.toml")))


def test_a_secret_of_a_section_that_is_missing_names_the_section() -> None:
    with pytest.raises(SettingsError, match=r"missing section \[sources\.mirror\]: expected it for its verify_tokens"):
        parse("", "/etc/glassq/glassq.toml").secret("sources.mirror.verify_tokens_file")


# -- where servers listen -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bind", "place"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("[::ffff:192.0.2.1]:80", ("::ffff:192.0.2.1", 80)),
        ("a-host.example:80", ("a-host.example", 80)),
        ("unix:/run/glassq/web.sock", "/run/glassq/web.sock"),
        ("unix:/a b/c:1.sock", "/a b/c:1.sock"),
        ("fd://3", None),
    ],
)
def test_a_bind_says_where_it_is(bind: str, place: object) -> None:
    assert Bind(bind).place == place


@pytest.mark.parametrize("bad", ["[:::1]:80", "[1.2.3.4]:80", "[]:80", "::1:80", "[::1]", "[::1]:", "[::1%lo]:80"])
def test_what_is_no_address_is_refused(bad: str) -> None:
    for kind in (Bind, Address):
        with pytest.raises(ValueError, match=r"HOST:PORT"):
            kind(bad)


def test_a_queue_has_a_tube_of_its_own_and_default_is_the_main_one() -> None:
    text = '[queue]\ntube = "t"\n[sources.a]\nqueue = "pay"\n[sources.b]\nqueue = "default"\n[sources.c]\n'
    settings = parse(text + "[worker.queues.pay]\nweight = 3\n", "my.toml")
    assert [source_tube(settings, name) for name in ("a", "b", "c", "gone")] == ["t.queue.pay", "t", "t", "t"]


def test_a_queue_that_only_the_pool_knows_stops_no_intake() -> None:
    """The machine of the intake need not have the [worker] section."""
    text = SOURCE + 'queue = "pay"\n'
    settings = parse(text, "my.toml", uses=INTAKE)
    assert source_tube(settings, "mirror") == "glassq.queue.pay"
    assert ['queue = "pay": expected a queue of [worker.queues]: default' in each for each in settings.ignored] == [
        True
    ]
    with pytest.raises(SettingsError):
        parse(text, "my.toml", uses=POOL)


def test_processes_that_are_kept_for_queues_are_nothing_for_push_queues() -> None:
    text = "[worker]\nprocesses = 5\n[worker.queues.a]\nchildren = 2\n"
    assert parse(text, "my.toml").worker.most_of_a_queue == 2


def test_threads_that_read_settings_first_and_at_once_all_get_them() -> None:
    code = (
        "import sys, threading\nfrom glassq.settings import parse\nsys.setswitchinterval(1e-3)\nfound = []\n"
        "def read():\n    found.append(parse('[queue]\\n[push]\\n', 'my.toml'))\n"
        "threads = [threading.Thread(target=read) for _ in range(8)]\n"
        "[thread.start() for thread in threads]\n[thread.join() for thread in threads]\nprint(len(found))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "8\n", "")


PLACES = ("bodies.url", "push.names", "glass.credentials", "ledger.url")


def places(settings: Settings) -> list[str]:
    return [str(getattr(getattr(settings, key.split(".")[0]), key.split(".")[1])) for key in PLACES]


def test_where_the_queue_is_postgresql_all_that_hosts_share_is_there_too() -> None:
    url = "postgres://ada:hunter2@one:5432,two/glassq?sslmode=require"
    settings = parse(f'[queue]\nurl = "{url}"\n[push]\n', "my.toml")
    assert places(settings) == [url] * 4
    shown = as_toml(settings).splitlines()
    assert sum("# the queue's database, which all hosts share" in line for line in shown) == 4
    assert list(remarks_on_shared(settings)) == []
    # what is printed has no password
    assert "hunter2" not in without_password(as_toml(settings))


def test_beside_beanstalkd_they_are_files_of_this_machine() -> None:
    settings = parse("[push]\n", "my.toml")
    assert places(settings) == [
        "file:///var/lib/glassq/bodies",
        "sqlite:////var/lib/glassq/task-names.db",
        "/var/lib/glassq/credentials",
        "sqlite:////var/lib/glassq/ledger.db",
    ]
    assert "all hosts share" not in as_toml(settings)
    assert list(remarks_on_shared(settings)) == []


def test_what_is_on_one_host_while_the_queue_is_for_many_is_remarked() -> None:
    text = (
        '[queue]\nurl = "postgres://h/q"\n[bodies]\nurl = "file:///b"\n[ledger]\nurl = "sqlite:////l.db"\n'
        '[push]\nnames = "postgresql+psycopg://other/db"\n[glass]\ncredentials = "/c"\n'
    )
    settings = parse(text, "my.toml")
    remarks = list(remarks_on_shared(settings))
    assert [remark.partition(" = ")[0] for remark in remarks] == [
        "my.toml: [bodies] url",
        "my.toml: [glass] credentials",
        "my.toml: [ledger] url",
    ]
    assert "on another host finds none of the large bodies" in remarks[0]
    assert "all hosts share" not in as_toml(settings)


@pytest.mark.parametrize(
    ("url", "bucket"),
    [("gs://pings", ("pings", "")), ("s3://my.pings/a/b", ("my.pings", "a/b/")), ("gs://pings/", ("pings", ""))],
)
def test_bodies_may_be_in_a_bucket(url: str, bucket: tuple[str, str]) -> None:
    found = parse(f'[bodies]\nurl = "{url}"\n', "my.toml").bodies.url
    assert (found.bucket, found.directory) == (bucket, None)


@pytest.mark.parametrize(
    ("path", "taken"),
    [("queue.yaml", "/etc/glassq/queue.yaml"), ("../q.yaml", "/etc/glassq/../q.yaml"), ("/srv/q.yaml", "/srv/q.yaml")],
)
def test_a_relative_path_of_another_file_begins_at_the_settings(path: str, taken: str) -> None:
    push = parse(f'[push]\nqueue_yaml = "{path}"\n', "/etc/glassq/glassq.toml").push
    assert push is not None
    assert (push.queue_yaml, push.cron_yaml) == (taken, None)
