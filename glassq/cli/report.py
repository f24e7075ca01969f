"""The one printer of what operations did: a line for each result, or a sum, or JSON; and the exit code."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from glassq.cli.output import line, print_json
from glassq.operations.result import Did, documents, in_sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.cli.app import App
    from glassq.operations.result import Report, Result

# So many reasons to leave something out are told, the commonest first.
MAX_REASONS = 5
# So many results have a line each; of more, those alone that were not done.
MAX_LINES = 10


def tell(
    app: App, report: Report, *summary: str, as_json: bool, every: bool | None = None, empty: str = "", **more: Any
) -> int:
    """Prints the report; returns the exit code. Raises what ended the operation early, once the report is out.

    With `every` each result has a line of its own, else only what was not done; None: where there are few. `empty` is
    said where a search found nothing: there is no result, and no error. JSON has all results, and `more` before. The
    lines of `summary` stand instead of the sums.
    """
    if as_json:
        outcomes = {"outcomes": dict(report.outcomes)} if report.outcomes else {}
        print_json({**more, "results": documents(report.results), "sums": report.sums(), **outcomes})
    else:
        _print(app, report, len(report.results) <= MAX_LINES if every is None else every, summary)
        if empty and not report.results and report.error is None:
            click.echo(line(app.adapt(empty)))
    if report.error is not None:
        for words in report.words:
            click.echo(line(app.adapt(f"glassq: {words}")), err=True)
        raise report.error
    return int(not report.complete)


def _print(app: App, report: Report, every: bool, summary: Sequence[str]) -> None:
    for result in report.results:
        if every or result.did is Did.NOTHING:
            click.echo(line(app.adapt(_line(result))))
    if not every:
        left_out = Counter(result.why for result in report.results if result.did is Did.LEFT_OUT)
        for why, count in left_out.most_common(MAX_REASONS):
            click.echo(line(app.adapt(f"{count} left out: {why}")))
    for words in summary:
        click.echo(line(app.adapt(words)))
    if not summary and sum(report.sums().values()) > 1:
        click.echo(report.sum_words())
    for words in report.words if report.error is None else ():
        click.echo(line(app.adapt(words)))


def _line(result: Result) -> str:
    if result.general:
        return f"{result.id}: {result.why}"
    if result.job:
        what = f"job {result.job}, delivery {result.delivery or '(damaged)'}"
    else:
        what = f"delivery {result.delivery}" if result.delivery else result.id
    return f"{what}: {in_sentence(result.words)}" + (f": {result.why}" if result.why else "")
