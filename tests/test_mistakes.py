"""Where a mistake in glassq.toml stands, and what is shown of its line."""

from __future__ import annotations

import pytest

from glassq.errors import SettingsError
from glassq.mistakes import MAX_SHOWN, located
from glassq.settings import parse


def refused(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(text, "my.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[worker]\nprocesses = "four"\n', 2),
        ('[worker]\r\n# why\r\n\r\nprocesses = "four"\r\n', 4),
        ('[queue]\nurl = "beanstalk://h:1"\n[ worker ] # here\n  "processes"="four"', 4),
        ('worker.max_jobs = 1\nworker.processes = "four"\n', 2),
        ('worker = { max_jobs = 1, processes = "four" }\n', 1),
        ('[glass]\nclient_id = """\n[worker]\nprocesses = 5\n"""\n[worker]\nprocesses = "four"\n', 7),
        ('[worker]\nprocesses = """\nfour\n"""\n', 2),
    ],
)
def test_a_wrong_value_is_found_however_its_key_is_written(text: str, line: int) -> None:
    said = refused(text)
    assert said.startswith("my.toml: [worker] processes = ")
    assert said.endswith(f" (line {line})")


ROUTE = '[[routes]]\nsource = "mirror"\nhandler = "m:f"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            ROUTE + ROUTE + 'coalesce = "no"\n',
            '[[routes]] (2nd) coalesce = "no": expected true or false, found the text "no" (line 7)',
        ),
        (
            ROUTE + ROUTE + 'colection = "x"\n',
            "unknown key [[routes]] (2nd) colection; did you mean collection? (line 7)",
        ),
        (
            ROUTE + '\n[[routes]]\nsource = "mirror"\n',
            "missing key [[routes]] (2nd) handler, or steps = [...] in its place (line 5)",
        ),
        (
            'routes = [{source = "mirror", handler = 5}]\n',
            '[[routes]] (1st) handler = 5: expected "package.module:function", "exec:/path/of/a/program" '
            'or "http://HOST:PORT/PATH" (line 1)',
        ),
        ("[queue]\n\n[workers]\n", "unknown key workers; did you mean worker? (line 3)"),
        (
            '[sources.a]\n[sources.b]\nsecret_file = "/s"\n',
            "unknown key [sources.b] secret_file; did you mean secrets_file? (line 3)",
        ),
        ("[notify]\nat_most = 100\n", "[notify] at_most = 100: expected a whole number, at most 60 (line 2)"),
        ('[worker]\ndeadline = "1m"\ngrace = "2m"\n', '[worker] grace = "2m": expected shorter than deadline (line 3)'),
    ],
)
def test_a_mistake_of_any_kind_is_found(text: str, says: str) -> None:
    assert refused(text) == f"my.toml: {says}"


def test_a_value_that_does_not_stand_in_the_file_has_no_line() -> None:
    assert refused('[worker]\ndeadline = "1s"\n') == 'my.toml: [worker] grace = "30s": expected shorter than deadline'


def test_a_key_is_found_in_the_first_line_and_in_the_last() -> None:
    text = "a = 1\n" + "# c\n" * 500 + "b.c = [\n1,\n]"
    assert located(text, ["a"]) == " (line 1)"
    assert located(text, ["b", "c", "0"]) == " (line 502)"
    assert located(text, ["d"]) == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[queue]\n  tube = tube # my\n",
            "is not TOML: expected a value: a number, true, false, or a text in quotes (line 2, column 10): tube =",
        ),
        ("[queue\n", "is not TOML: expected ']' at the end of a table declaration (line 1, column 7): [queue"),
        ("[queue]\ntube =", "is not TOML: the statement that begins here is incomplete (line 2): tube ="),
        ("\n\nprocesses 4\n", "is not TOML: expected KEY = VALUE (line 3, column 11): processes 4"),
        (
            '[queue]\ntube = "a\nttr = "2m"\n',
            'is not TOML: a text without a closing quote (line 2, column 10): tube = "a',
        ),
        ('[queue]\ntube = "a"\n\ntube = "b"\n', 'is not TOML: duplicate key (line 4, column 11): tube = "b"'),
        ("[queue]\n[queue]\n", "is not TOML: duplicate section (line 2, column 7): [queue]"),
        ('[queue]\ntube = """\na\n', 'is not TOML: the statement that begins here is incomplete (line 2): tube = """'),
        ("# c\nroutes = [\n1,\n\n", "is not TOML: the statement that begins here is incomplete (line 2): routes = ["),
        ("[queue]\ntube = “a”\n", "; the line holds U+201C LEFT DOUBLE QUOTATION MARK (line 2, column 8): tube = “a”"),
        ('[queue]\ntube\u00a0= "a"\n', '; the line holds U+00A0 NO-BREAK SPACE (line 2, column 5): tube\\u00a0= "a"'),
    ],
)
def test_what_is_not_toml_is_shown_with_its_line(text: str, says: str) -> None:
    assert says in refused(text)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("client_secret = s3cret", "client_secret=***"),
        ('verify_tokens = "s3cret', "verify_tokens=***"),
        ("s3cret", "***"),
        ("url = postgresql://ada:s3cret@db/glassq", "url=postgresql://ada:***@db/glassq"),
        ('glass = { client_secret = "s3cret" ', "glass={ client_secret=*** "),
        ("verify_tokens_file = s3cret", "verify_tokens_file=***"),
        ("verify_tokens_file = /etc/tokens", "verify_tokens_file = /etc/tokens"),
    ],
)
def test_a_secret_in_a_line_that_is_not_toml_is_masked(line: str, shown: str) -> None:
    said = refused(f"[ledger]\n{line}\n")
    assert said.rstrip().endswith(f": {shown}".rstrip())
    assert "s3cret" not in said


def test_a_password_in_a_value_is_masked() -> None:
    assert "s3cret" not in refused('[push]\n[push.targets]\ndefault = "http://ada:s3cret@host/"\n')


def test_a_long_line_is_cut() -> None:
    assert len(refused(f'[queue]\ntube = "{"a" * 5000}\n')) < MAX_SHOWN + 120
