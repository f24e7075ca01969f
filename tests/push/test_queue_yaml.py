from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glassq.errors import SettingsError
from glassq.push.queue_yaml import MAX_FILE, PushQueue, load, parse
from glassq.push.rule import RetryParameters
from glassq.push.yaml_nodes import MAX_MISTAKES
from tests.conftest import ROOT
from tests.thorough import examples

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = ROOT / "conf" / "queue.yaml"
DEFAULT = PushQueue(name="default")

# The keys that App Engine documents for a push queue.
KEYS = {"name", "mode", "rate", "bucket_size", "max_concurrent_requests", "target", "retry_parameters"}
RETRY_KEYS = set(RetryParameters.__struct_fields__)


def refused(text: str, targets: set[str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(text, "queue.yaml", targets)
    return str(caught.value).splitlines()


def queue(*lines: str) -> str:
    """A file with one queue, named x in line 2; `lines` are its other keys, from line 3 on."""
    return "\n".join(["queue:", "- name: x", *(f"  {line}" for line in lines)]) + "\n"


def retry(*lines: str) -> str:
    """The same, where `lines` are its retry_parameters, from line 4 on."""
    return queue("retry_parameters:", *(f"  {line}" for line in lines))


def one(*lines: str, targets: set[str] | None = None) -> PushQueue:
    return parse(queue(*lines), "queue.yaml", targets)["x"]


# --- what is read ------------------------------------------------------------------------------------------------


def test_a_file_from_app_engine_is_read_as_it_is() -> None:
    text = """
total_storage_limit: 120M
queue:
# Change the refresh rate of the default queue from 5/s to 1/s
- name: default
  rate: 1/s
- name: optimize-queue
  rate: 20/s
  bucket_size: 40
  max_concurrent_requests: 10
- name: fooqueue
  rate: 10/m
  target: backend
  retry_parameters:
    task_retry_limit: 7
    task_age_limit: 2d
- name: barqueue
  mode: push
  rate: 0
  retry_parameters: {min_backoff_seconds: 10, max_backoff_seconds: 200, max_doublings: 0}
"""
    assert parse(text, "queue.yaml", {"backend"}) == {
        "default": PushQueue(name="default", rate=1.0),
        "optimize-queue": PushQueue(name="optimize-queue", rate=20.0, bucket_size=40, max_concurrent_requests=10),
        "fooqueue": PushQueue(
            name="fooqueue",
            rate=10 / 60,
            target="backend",
            retry=RetryParameters(task_retry_limit=7, task_age_limit=2 * 86_400.0),
        ),
        "barqueue": PushQueue(
            name="barqueue",
            rate=0.0,
            retry=RetryParameters(min_backoff_seconds=10.0, max_backoff_seconds=200.0, max_doublings=0),
        ),
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "queue:\n", "queue: []\n", "application: glass\n"])
def test_a_file_without_queues_leaves_the_default_queue(text: str) -> None:
    assert parse(text, "queue.yaml") == {"default": DEFAULT}


def test_the_default_queue_is_there_beside_others() -> None:
    assert parse(queue(), "queue.yaml") == {"default": DEFAULT, "x": PushQueue(name="x")}


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        ("5/s", 5.0),
        ("0.5/s", 0.5),
        ("7./s", 7.0),
        ("30/m", 0.5),
        ("1800/h", 0.5),
        ("43200/d", 0.5),
        ("0", 0.0),
        ("0/s", 0.0),
        ('"5/s"', 5.0),
        ("1000000/s", 1e6),
    ],
)
def test_a_rate_is_per_second_whatever_its_unit(written: str, rate: float) -> None:
    assert one(f"rate: {written}").rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("1.5m", 90), ("2h", 7200), ("2d", 172_800), ("1e2s", 100), ("3650d", 315_360_000)],
)
def test_an_age_limit_is_in_seconds_whatever_its_unit(written: str, seconds: float) -> None:
    text = retry(f"task_age_limit: {written}")
    assert parse(text, "queue.yaml")["x"].retry == RetryParameters(task_age_limit=seconds)


def test_a_lone_backoff_pulls_the_other_to_it() -> None:
    text = retry("min_backoff_seconds: 7200")
    assert parse(text, "queue.yaml")["x"].retry.max_backoff_seconds == 7200.0


def test_retry_parameters_whose_keys_are_commented_out_are_the_defaults() -> None:
    assert one("retry_parameters:", "  # task_retry_limit: 7") == PushQueue(name="x")


@pytest.mark.parametrize("name", ["on", "no", "null", "2024", "0x1F", "1e3", "a" * 100])
def test_a_name_is_what_stands_there_whatever_yaml_takes_it_for(name: str) -> None:
    assert set(parse(f"queue:\n- name: {name}\n", "queue.yaml")) == {"default", name}


def test_anchors_and_merge_keys_share_settings_and_own_keys_win() -> None:
    text = """
queue:
- &base
  name: base
  rate: 1/s
  bucket_size: 9
  retry_parameters: &patient {task_retry_limit: 3}
- <<: *base
  name: faster
  rate: 2/s
- <<: [{rate: 3/s}, *base]
  name: fastest
  retry_parameters: {<<: *patient, max_doublings: 1}
"""
    queues = parse(text, "queue.yaml")
    assert (queues["faster"].rate, queues["faster"].bucket_size) == (2.0, 9)
    assert queues["faster"].retry == queues["base"].retry == RetryParameters(task_retry_limit=3)
    assert (queues["fastest"].rate, queues["fastest"].bucket_size) == (3.0, 9)
    assert queues["fastest"].retry == RetryParameters(task_retry_limit=3, max_doublings=1)


def test_keys_that_mean_nothing_here_are_ignored_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "glassq.push")
    text = "application: glass\nresume_paused_queues: true\n" + queue("acl:", "- user_email: me@example.com")
    assert parse(text, "q.yaml")["x"] == PushQueue(name="x")
    assert [record.getMessage() for record in caplog.records] == [
        "q.yaml:1: application means nothing to glassq and is ignored",
        "q.yaml:2: resume_paused_queues means nothing to glassq and is ignored",
        "q.yaml:5: acl means nothing to glassq and is ignored",
    ]


# --- what is refused ---------------------------------------------------------------------------------------------

RATE = 'expected NUMBER/UNIT such as "5/s" (units s m h d), or 0'
COUNT = "expected a whole number from 1 to 1000000"
WHOLE = "expected a whole number from 0 to 2147483647"
AGE = 'expected NUMBER and UNIT such as "2d" (units s m h d)'
SECONDS = "expected seconds, from 0 up to 315360000"

# What is written, and how the only line about it begins after the file's name.
MISTAKES = [
    # rates
    (queue("rate: 5/x"), f'3: queue "x": rate = "5/x": {RATE}'),
    (queue("rate: 5"), f'3: queue "x": rate = "5": {RATE}'),
    (queue("rate: -1/s"), f'3: queue "x": rate = "-1/s": {RATE}'),
    (queue("rate: .nan"), f'3: queue "x": rate = ".nan": {RATE}'),
    (queue("rate: inf/s"), f'3: queue "x": rate = "inf/s": {RATE}'),
    (queue("rate: 1000001/s"), f'3: queue "x": rate = "1000001/s": {RATE}; at most 1000000/s'),
    (queue(f"rate: {'9' * 400}/s"), f'3: queue "x": rate = "{"9" * 60}...": {RATE}'),
    (queue("rate: ５/s"), '3: queue "x": rate = "\\uff15/s": expected NUMBER'),
    (queue('rate: "5/s\\n"'), '3: queue "x": rate = "5/s\\n": expected NUMBER'),
    (queue("rate:"), f'3: queue "x": rate = "": {RATE}'),
    (queue("rate: [5/s]"), f'3: queue "x": rate is a list: {RATE}'),
    (queue("rate: {s: 5}"), f'3: queue "x": rate is a mapping: {RATE}'),
    # whole numbers: YAML 1.1 would read the last three as 8, 90 and 1000
    (queue("bucket_size: 0"), f'3: queue "x": bucket_size = "0": {COUNT}'),
    (queue("bucket_size: 1000001"), f'3: queue "x": bucket_size = "1000001": {COUNT}'),
    (queue("bucket_size: 2.5"), f'3: queue "x": bucket_size = "2.5": {COUNT}'),
    (queue("bucket_size: true"), f'3: queue "x": bucket_size = "true": {COUNT}'),
    (queue("bucket_size: 010"), f'3: queue "x": bucket_size = "010": {COUNT}'),
    (queue("max_concurrent_requests: 1:30"), f'3: queue "x": max_concurrent_requests = "1:30": {COUNT}'),
    (queue("max_concurrent_requests: 1_000"), f'3: queue "x": max_concurrent_requests = "1_000": {COUNT}'),
    (queue("max_concurrent_requests: 0"), f'3: queue "x": max_concurrent_requests = "0": {COUNT}'),
    # retry_parameters
    (retry("task_retry_limit: -1"), f'4: queue "x": retry_parameters: task_retry_limit = "-1": {WHOLE}'),
    (retry("task_retry_limit: 1e3"), f'4: queue "x": retry_parameters: task_retry_limit = "1e3": {WHOLE}'),
    (retry("max_doublings: 2147483648"), f'4: queue "x": retry_parameters: max_doublings = "2147483648": {WHOLE}'),
    (retry("task_age_limit: 0s"), f'4: queue "x": retry_parameters: task_age_limit = "0s": {AGE}'),
    (retry("task_age_limit: 60"), f'4: queue "x": retry_parameters: task_age_limit = "60": {AGE}'),
    (retry("task_age_limit: 2w"), f'4: queue "x": retry_parameters: task_age_limit = "2w": {AGE}'),
    (retry("task_age_limit: d"), f'4: queue "x": retry_parameters: task_age_limit = "d": {AGE}'),
    (retry("task_age_limit:"), f'4: queue "x": retry_parameters: task_age_limit = "": {AGE}'),
    (retry("task_age_limit: 3651d"), f'4: queue "x": retry_parameters: task_age_limit = "3651d": {AGE}'),
    (retry("min_backoff_seconds: -0.1"), f'4: queue "x": retry_parameters: min_backoff_seconds = "-0.1": {SECONDS}'),
    (retry("min_backoff_seconds: 5s"), f'4: queue "x": retry_parameters: min_backoff_seconds = "5s": {SECONDS}'),
    (retry("max_backoff_seconds: .inf"), f'4: queue "x": retry_parameters: max_backoff_seconds = ".inf": {SECONDS}'),
    (retry("max_backoff_seconds: nan"), f'4: queue "x": retry_parameters: max_backoff_seconds = "nan": {SECONDS}'),
    (retry("max_backoff_seconds: 1e99"), f'4: queue "x": retry_parameters: max_backoff_seconds = "1e99": {SECONDS}'),
    (
        retry("task_retry_limits: 7"),
        '4: queue "x": retry_parameters: unknown key task_retry_limits; did you mean task_',
    ),
    (queue("retry_parameters: 7"), '3: queue "x": retry_parameters: expected a mapping, such as task_retry_limit: 7'),
    (
        retry("max_backoff_seconds: 10", "min_backoff_seconds: 20"),
        '3: queue "x": retry_parameters: min_backoff_seconds = 20 is more than max_backoff_seconds = 10',
    ),
    # names and modes
    ("queue:\n- name: a_b\n", '2: queue number 1: name = "a_b": expected 1 to 100 of a-z A-Z 0-9 and -'),
    ("queue:\n- name: " + "a" * 101, f'2: queue number 1: name = "{"a" * 60}...": expected 1 to 100 of'),
    ("queue:\n- name:\n", '2: queue number 1: name = "": expected 1 to 100 of'),
    ("queue:\n- name: [a]\n", "2: queue number 1: name is a list: expected 1 to 100 of"),
    ('queue:\n- name: "a\\e[2J"\n', '2: queue number 1: name = "a\\u001b[2J": expected'),
    ("queue:\n- rate: 5/s\n", "2: queue number 1: missing key name"),
    (queue("mode: pull", "rate: what"), '3: queue "x": mode = "pull": glassq has push queues only'),
    (queue("mode: poll"), '3: queue "x": mode = "poll": expected push'),
    (
        queue("rate: 1/s", "- name: y", "- name: x").replace("  -", "-"),
        '5: queue "x": is there twice, the first time in',
    ),
    # keys
    (queue("bucketsize: 5"), '3: queue "x": unknown key bucketsize; did you mean bucket_size?'),
    (queue("colour: red"), '3: queue "x": unknown key colour; expected one of: name, mode, rate, bucket_size, max_'),
    (queue('"a\\nb": 1'), '3: queue "x": unknown key a\\nb; expected one of'),
    (queue("rate: 1/s", "rate: 2/s"), "4: queue number 1: rate is there twice"),
    (queue("? [a, b]", ": 1"), "3: queue number 1: a key is a list: expected a word"),
    (queue("<<: 5"), '3: queue number 1: <<= "5": expected a mapping, or a list of mappings'.replace("<<=", "<< =")),
    ("queues:\n- name: x\n", "1: unknown key queues; did you mean queue?"),
    ("queue: []\nqueue: []\n", "2: queue is there twice"),
    # shapes
    ("- name: x\n", "1: expected queue: and a list of queues"),
    ("queue\n", "1: expected queue: and a list of queues"),
    ("queue:\n  name: x\n", "2: queue is a mapping: expected a list, each item with a name"),
    ("queue: default\n", '1: queue = "default": expected a list'),
    ("queue:\n- default\n", "2: queue number 1: expected a mapping with a name, such as - name: mail"),
    ("queue:\n-\n", "2: queue number 1: expected a mapping with a name"),
    # not YAML
    ("queue:\n\t- name: x\n", "2: is not YAML: found character '\\t' that cannot start any token: \"\\t- name: x\""),
    ("queue:\n- name: x\n  rate: a: b\n", '3: is not YAML: mapping values are not allowed here: "  rate: a: b"'),
    ("queue: [\n", "2: is not YAML: expected the node content"),
    ("queue:\n- name: *x\n", "2: is not YAML: found undefined alias"),
    ("queue: []\n---\nqueue: []\n", "2: is not YAML: but found another document"),
    ("queue:\n- name: a\x00\n", "2: is not YAML: special characters are not allowed"),
]


@pytest.mark.parametrize(("text", "says"), MISTAKES)
def test_a_mistake_is_refused_with_line_key_and_the_accepted_form(text: str, says: str) -> None:
    (line,) = refused(text)
    assert line.startswith(f"queue.yaml:{says}")


def test_all_mistakes_are_reported_at_once_by_line() -> None:
    text = queue("bucket_size: 0", "rate: 5/x", "retry_parameters:", "  max_doublings: x", "colour: red") + "ques: 1\n"
    lines = [line.split(":")[1] for line in refused(text)]
    assert lines == ["3", "4", "6", "7", "8"]


def test_the_line_of_a_mistake_that_was_merged_in_is_where_it_stands() -> None:
    text = (
        "queue:\n- name: x\n  retry_parameters: &r\n    max_doublings: 1\n- name: y\n  <<: {rate: x,\n    mode: push}\n"
    )
    assert refused(text) == [f'queue.yaml:6: queue "y": rate = "x": {RATE}; at most 1000000/s']


def test_a_target_is_one_of_the_settings() -> None:
    assert one("target: backend", targets={"default", "backend"}).target == "backend"
    assert one("target: backend").target == "backend"
    (line,) = refused(queue("target: bakend"), {"default", "backend"})
    assert line == 'queue.yaml:3: queue "x": target = "bakend": expected one of [push.targets]: backend, default'
    (line,) = refused(queue("target: backend"), set())
    assert line.endswith("expected one of [push.targets]: (there is none)")


# --- what would take the process down ------------------------------------------------------------------------------


def test_more_mistakes_than_anybody_reads_are_cut_short() -> None:
    lines = refused("queue:\n" + "- name: _\n" * 1000)
    assert len(lines) == MAX_MISTAKES + 1
    assert lines[-1] == "queue.yaml: the rest was not looked at"


def test_aliases_of_aliases_of_aliases_are_followed_once_each() -> None:
    levels = ["- &a0 {name: q0, rate: 1/s}"]
    levels += [f"- &a{n} {{name: q{n}, <<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 30)]
    queues = parse("\n".join(["queue:", *levels]), "queue.yaml")
    assert queues["q29"] == PushQueue(name="q29", rate=1.0)


def test_a_short_file_that_unfolds_to_a_long_one_is_refused() -> None:
    merges = ", ".join(["*m"] * 2000)
    queues = "\n".join(f"- {{name: q{number}, <<: *l}}" for number in range(2000))
    text = f"queue:\n- {{name: a, <<: &l [&m {{rate: 1/s}}, {merges}]}}\n{queues}\n"
    assert refused(text) == ["queue.yaml: unfolds to more than 100000 keys and values: expected fewer aliases"]


def test_a_mapping_that_merges_itself_is_read_once() -> None:
    assert parse("queue:\n- &a\n  name: x\n  <<: *a\n", "queue.yaml")["x"] == PushQueue(name="x")


def test_a_list_that_holds_itself_is_refused() -> None:
    (line,) = refused("queue: &a\n- *a\n")
    assert line.startswith("queue.yaml:1: queue number 1: expected a mapping")


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 100_000, "{a: " * 50_000])
def test_a_file_nested_too_deep_is_refused(text: str) -> None:
    assert refused(text) == ["queue.yaml: is nested too deep"]


def test_a_thousand_queues_are_read() -> None:
    text = "queue:\n" + "".join(f"- name: q{number}\n  rate: 5/s\n  bucket_size: 10\n" for number in range(1000))
    assert len(parse(text, "queue.yaml")) == 1001


@settings(deadline=None, max_examples=examples(100))
@given(
    st.text()
    | st.lists(st.sampled_from([*KEYS, *RETRY_KEYS, *"-:{}[]&*<!|>#%@'\"\\ \n", "\n- ", ": 5/s"])).map("".join)
)
@example('queue: "\\UFFFFFFFF"')
@example('queue: "\\uD800"')
@example(f"%YAML {'9' * 5000}.1\n---\n")
@example("queue: !!python/object/apply:os.getcwd []\n")
@example("? {a: b}\n: c\n")
def test_whatever_stands_in_the_file_it_is_read_or_refused_with_the_files_name(text: str) -> None:
    try:
        assert "default" in parse(text, "queue.yaml")
    except SettingsError as error:
        assert all(line.startswith("queue.yaml:") for line in str(error).splitlines())


# --- files ---------------------------------------------------------------------------------------------------------


def test_without_a_file_there_is_the_default_queue() -> None:
    assert load(None) == {"default": DEFAULT}


def test_a_file_is_read_and_its_mistakes_name_it(tmp_path: Path) -> None:
    file = tmp_path / "queue.yaml"
    file.write_text(queue("rate: 9/s", "target: t"))
    assert load(str(file), {"t"})["x"] == PushQueue(name="x", rate=9.0, target="t")
    with pytest.raises(SettingsError, match=f"^{re.escape(str(file))}:4: "):
        load(str(file), {"u"})


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "queue.yaml"
    file.write_text(queue(), "utf-8-sig")
    assert "x" in load(str(file))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.yaml: cannot be read: No such file"):
        load(str(tmp_path / "missing.yaml"))
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load(str(tmp_path))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "queue.yaml"
    file.write_bytes(b"queue: \xff\n")
    with pytest.raises(SettingsError, match=r"queue\.yaml: is not UTF-8 text"):
        load(str(file))
    file.write_bytes(queue().encode("utf-16"))
    with pytest.raises(SettingsError, match=r"queue\.yaml: is not UTF-8 text but UTF-16: save it as UTF-8"):
        load(str(file))


def test_what_an_editor_on_windows_adds_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "queue.yaml"
    file.write_bytes(queue("rate: 2/s").replace("\n", "\r\n").encode("utf-8-sig"))
    assert load(str(file)) == {"default": DEFAULT, "x": PushQueue(name="x", rate=2.0)}


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    file = tmp_path / "queue.yaml"
    file.touch()
    os.truncate(file, 1 << 40)
    with pytest.raises(SettingsError, match=f"expected a queue.yaml of at most {MAX_FILE >> 10} KiB"):
        load(str(file))


# --- conf/queue.yaml -----------------------------------------------------------------------------------------------


def test_the_shipped_file_holds_exactly_the_defaults() -> None:
    assert load(str(SHIPPED), set()) == {"default": DEFAULT}


def test_the_shipped_file_explains_every_key_and_its_examples_are_accepted() -> None:
    text = SHIPPED.read_text("utf-8")
    written = re.findall(r"^ *(?:- |# )?(\w+):(?: [^#]*)?$", text, re.MULTILINE)
    assert set(written) == {"queue"} | KEYS | RETRY_KEYS
    examples = re.sub(r"^( +)# (\w+: \S+)$", r"\1\2", text, flags=re.MULTILINE)
    (default,) = parse(examples, "queue.yaml", {"default"}).values()
    assert (default.max_concurrent_requests, default.target) == (10, "default")
    assert (default.retry.task_retry_limit, default.retry.task_age_limit) == (7, 172_800.0)
