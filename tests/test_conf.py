"""conf/glassq.toml is documentation, and documentation is held to the code."""

from __future__ import annotations

import itertools
import re
import tomllib
from typing import Any

import msgspec
import pytest

from glassq.settings import PushSettings, Route, Settings, SourceSettings, TasksSettings, WorkerQueue, parse
from tests.conftest import ROOT

FILE = ROOT / "conf" / "glassq.toml"
TEXT = FILE.read_text("utf-8")
# tables of sections with names of the user's own
TABLES = {"queues", "targets"}
SECTIONS = ("queue", "intake", "bodies", "worker", "glass", "storage", "ledger", "metrics", "log")


def test_the_shipped_file_holds_exactly_the_defaults() -> None:
    shipped = parse(TEXT, "")
    own = msgspec.structs.replace(shipped, sources=Settings().sources, routes=(), metrics=Settings().metrics)
    assert own == Settings()


def test_the_line_that_an_installation_rewrites_is_one_sentence() -> None:
    """tools/install replaces line 2 by one that names the keys with other values."""
    line = TEXT.splitlines()[1]
    assert line == "# A missing key has the value that it has here."
    assert f"-e '2s|.*|{line.removesuffix('.')}, except " in (ROOT / "tools" / "install").read_text("utf-8")


def test_the_shipped_file_has_metrics_on_this_machine_alone() -> None:
    metrics = parse(TEXT, str(FILE)).metrics
    assert (metrics.intake, metrics.pool, metrics.tasks) == ("127.0.0.1:9464", "127.0.0.1:9465", "127.0.0.1:9466")


def test_the_shipped_file_takes_pings_and_leaves_the_handler_to_its_owner() -> None:
    shipped = parse(TEXT, str(FILE))
    assert shipped.sources == {
        "mirror": SourceSettings(verify_tokens_file=shipped.sources["mirror"].verify_tokens_file)
    }
    assert shipped.routes == ()
    assert shipped.glass == Settings().glass


def test_the_route_that_the_shipped_file_explains_is_one_without_its_comment_signs() -> None:
    """As somebody uncomments it: the section, its source and its handler."""
    text = re.sub(r"^# (\[\[routes\]\]|source = .*|handler = .*)$", r"\1", TEXT, flags=re.MULTILINE)
    (route,) = parse(text, str(FILE)).routes
    assert (route.source, route.handler) == ("mirror", "handlers:handle")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_every_section_stands_in_the_shipped_file(section: str) -> None:
    kind: Any = getattr(Settings(), section)
    assert set(tomllib.loads(TEXT)[section]) == set(kind.__struct_fields__) - TABLES


def test_every_key_of_the_sections_that_are_optional_is_explained() -> None:
    written = set(re.findall(r"^(?:# )?(\w+) = ", TEXT, re.MULTILINE))
    sections = (Route, SourceSettings, PushSettings, TasksSettings, WorkerQueue)
    assert {name for section in sections for name in section.__struct_fields__} - TABLES <= written


def test_sections_stand_in_the_order_of_the_settings() -> None:
    written = [name.split(".")[0] for name in re.findall(r"^(?:# )?\[+([\w.]+)\]+$", TEXT, re.MULTILINE)]
    written = list(dict.fromkeys(written))
    assert written == [
        name for name in Settings.__struct_fields__ if name not in ("file", "ignored", "outdated", "unset")
    ]


def test_every_key_has_a_comment_above_it() -> None:
    lines = TEXT.splitlines()
    bare = [line for before, line in itertools.pairwise(lines) if " = " in line and before[:1] != "#"]
    assert [line for line in bare if not line.startswith("#")] == []
