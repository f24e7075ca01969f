from __future__ import annotations

import pytest

from glassq.values import QueueUrl, Rate, SyncerAddress


@pytest.mark.parametrize(
    ("text", "per_second"),
    [
        ("10/s", 10.0), ("30/m", 0.5), ("36/h", 0.01), ("0.5/s", 0.5), ("43200/d", 0.5), ("7./s", 7.0), ("0", 0.0),
        ("0/s", 0.0), ("1000000/s", 1e6),
    ],
)  # fmt: skip
def test_a_rate_is_per_second_whatever_its_unit(text: str, per_second: float) -> None:
    assert Rate(text) == pytest.approx(per_second)


@pytest.mark.parametrize(
    "text", ["", "5", "-1/s", "5/x", "5 /s", "/s", "inf/s", "nan/s", "1000001/s", "9" * 400 + "/s", "５/s", "5/s\n"]
)
def test_what_is_no_rate_is_refused_with_the_accepted_form(text: str) -> None:
    with pytest.raises(ValueError, match='expected a rate such as "10/s", "30/m" or "5/h"'):
        Rate(text)


@pytest.mark.parametrize(
    ("per_second", "text"),
    [
        (5, "5/s"), (0, "0/s"), (2.5, "2.5/s"), (0.5 / 60, "30/h"), (1000 / 86_400, "1000/d"), (1 / 86_400, "1/d"),
        (1 / 3600, "1/h"), (1_000_000, "1000000/s"), (0.01 / 86_400, "0.01/d"), (500, "500/s"),
    ],
)  # fmt: skip
def test_a_rate_is_printed_in_the_shortest_form_that_is_read_again(per_second: float, text: str) -> None:
    assert str(Rate(per_second)) == text
    assert Rate(text) == pytest.approx(per_second)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://user@host/db", "postgres://user@host/db"),
        ("postgresql://host:5433/db?sslmode=require", "postgresql://host:5433/db?sslmode=require"),
        ("postgres://u:p:w@a:1,b:2/db", "postgres://u:***@a:1,b:2/db"),
        ("postgres://u:p@w@h/db", "postgres://u:***@h/db"),
        ("postgres://h/db?user=u&password=pw&sslmode=require", "postgres://h/db?user=u&password=***&sslmode=require"),
        ("postgres:///db?host=/run/postgresql", "postgres:///db?host=/run/postgresql"),
        ("postgres://?service=glassq", "postgres://?service=glassq"),
    ],
)
def test_a_databases_url_shows_no_password(text: str, shown: str) -> None:
    url = QueueUrl(text)
    assert (str(url), f"{url}", url.whole, url.engine) == (shown, shown, text, "postgres")
    # only beanstalkd has a syncer
    assert SyncerAddress("").beside(url) is None


@pytest.mark.parametrize(
    "text", ["postgres://host", "postgres://host/", "postgres://h/a b", "postgres:/h/db", "mysql://h/d"]
)
def test_what_names_no_database_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="postgres://"):
        QueueUrl(text)
