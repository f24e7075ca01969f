"""Charts: shapes with the right numbers at the right places, and words for who cannot see them."""

from __future__ import annotations

import re

import pytest

from glassq.console import charts
from glassq.operations.curves import CountSample
from glassq.operations.rates import Minute

END = 1_795_928_400.0
BEGIN = END - 3_600


def test_a_line_goes_through_its_samples_and_breaks_where_nobody_looked() -> None:
    samples = [CountSample(BEGIN + 60 * at, 100 - at, 1, 2, 3) for at in (0, 1, 2, 30, 60)]
    found = charts.lines("Backlog", samples, BEGIN, END)
    waiting, ready = found.shapes
    assert re.sub("[0-9.,]", "", waiting.path).split() == ["M", "L", "L", "M", "M"]
    assert waiting.path.startswith("M44.0,")
    # 103 of 200: in the middle of the chart's height
    assert ready.path.startswith("M44.0,64.0")
    assert [tick.words for tick in found.left] == ["0", "100", "200"]
    assert [tick.words for tick in found.below] == ["04:10", "04:20", "04:30", "04:40", "04:50"]
    # what lies below each part of it that has two samples is filled
    assert waiting.area.count("z") == 1
    assert ready.area == ""
    assert (found.blank, found.remark) == (0.0, "")
    assert found.words == "43 wait now; since 04:00 UTC at least 43, at most 103"
    assert found.rows[0] == ("04:00", "100", "1", "2", "3")


def test_without_samples_there_is_nothing_to_draw() -> None:
    found = charts.lines("Backlog", [], BEGIN, END)
    assert (found.empty, found.words) == (True, "no samples yet")
    assert charts.bars("Done", [], BEGIN, END).empty


def test_a_curve_says_where_it_begins_and_an_hour_without_work_says_so() -> None:
    young = [CountSample(END - seconds, 5, 0, 0, 0) for seconds in (60, 30, 0)]
    found = charts.lines("Backlog", young, BEGIN, END)
    assert found.remark == "sampled since 04:59: the curve grows from there"
    assert charts.LEFT < found.remark_at < found.blank < charts.WIDTH
    idle = charts.bars("Done", [Minute(int(BEGIN) + 60 * at) for at in range(60)], BEGIN, END)
    assert (idle.remark, len(idle.left), idle.empty) == ("nothing was worked", 1, False)


def test_a_day_is_a_line_with_its_peak() -> None:
    begin = END - 86_400
    samples = [CountSample(begin + 60 * at, 9_000 if at == 601 else 10, 0, 0, 0) for at in range(1_440)]
    found = charts.lines("Backlog", samples, begin, END)
    assert found.shapes[0].path.count("M") == 1
    assert found.words.endswith("at least 10, at most 9,000")
    assert [tick.words for tick in found.left] == ["0", "5k", "10k"]
    assert any("9,000" in row for row in charts.lines("Backlog", samples[600:603], begin, END).rows)


def test_bars_stand_on_each_other_and_keep_their_sum() -> None:
    minutes = [Minute(int(BEGIN) + 60 * at, done=10, failed=5, buried=at % 2) for at in range(60)]
    found = charts.bars("Done and failed", minutes, BEGIN, END)
    assert [shape.path.count("M") for shape in found.shapes] == [60, 60, 30]
    done, failed, _ = (re.search(r"M[\d.]+,([\d.]+)h[\d.]+V([\d.]+)", shape.path) for shape in found.shapes)
    assert done is not None
    assert failed is not None
    # the failed ones begin where the done ones end
    assert failed[2] == done[1]
    assert found.words == "600 done, 300 failed and 30 buried; a bar for each minute"
    day = [Minute(int(END) - 86_400 + 60 * at, done=1) for at in range(1440)]
    long = charts.bars("Done", day, END - 86_400, END)
    assert (len(long.rows), long.words) == (72, "1,440 done, 0 failed and 0 buried; a bar for every 20 minutes")


@pytest.mark.parametrize(
    ("largest", "axis"), [(0, 4), (4, 4), (5, 5), (11, 20), (21, 30), (31, 40), (5_600, 6_000), (100_001, 200_000)]
)
def test_an_axis_ends_at_a_round_number(largest: int, axis: int) -> None:
    assert charts.nice(largest) == axis


@pytest.mark.parametrize(("number", "words"), [(0, "0"), (950, "950"), (5_600, "5.6k"), (120_000, "120k"), (2e6, "2M")])
def test_numbers_at_an_axis_are_short(number: float, words: str) -> None:
    assert charts.short(number) == words


def test_a_spark_fits_into_its_box() -> None:
    assert charts.spark([]) == charts.spark([1]) == ""
    assert charts.spark([0, 0]) == "M0.0,23.0 L120.0,23.0"
    assert charts.spark([0, 10]) == "M0.0,23.0 L120.0,1.0"


def test_a_spark_has_words() -> None:
    assert charts.spark_words([7]) == ""
    assert charts.spark_words([7, 7]) == "7 all the time"
    assert charts.spark_words([7, 1_200, 40]) == "40 now, at least 7, at most 1,200"


def test_the_last_sample_is_always_shown() -> None:
    samples = [CountSample(float(at), at, 0, 0, 0) for at in range(1_000)]
    thin = charts.thinned(samples, 60)
    assert len(thin) <= 60
    assert thin[-1] is samples[-1]
