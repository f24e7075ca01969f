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
    assert [tick.words for tick in found.below] == ["04:00", "04:10", "04:20", "04:30", "04:40", "04:50"]
    assert found.words == "43 wait now; since 04:00 UTC at least 43, at most 103"
    assert found.rows[0] == ("04:00", "100", "1", "2", "3")


def test_without_samples_there_is_nothing_to_draw() -> None:
    found = charts.lines("Backlog", [], BEGIN, END)
    assert (found.empty, found.words) == (True, "no samples yet")
    assert charts.bars("Done", [], BEGIN, END).empty


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
    ("largest", "axis"), [(0, 4), (4, 4), (5, 5), (11, 20), (21, 25), (26, 50), (5_600, 10_000), (100_001, 200_000)]
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


def test_the_last_sample_is_always_shown() -> None:
    samples = [CountSample(float(at), at, 0, 0, 0) for at in range(1_000)]
    thin = charts.thinned(samples, 60)
    assert len(thin) <= 60
    assert thin[-1] is samples[-1]
