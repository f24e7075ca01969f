"""`glassq sources`: who may send pings, how that goes, which kinds there are; why a saved request is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from glassq.cli import completion
from glassq.cli.app import App, as_json, examples, pass_app
from glassq.cli.files import MAX_SAVED, read_input
from glassq.cli.group import CommandGroup
from glassq.cli.output import console, line, print_facts, print_hints, print_json, print_table, table
from glassq.errors import SettingsError
from glassq.operations import sources as operation
from glassq.operations.words import span

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.intake.report import SourceReport
    from glassq.operations.kinds import KindOfSource
    from glassq.operations.request_test import TestedRequest
    from glassq.operations.sources import SourceRow


@click.group(
    cls=CommandGroup,
    invoke_without_command=True,
    epilog=examples(
        ("all about a sender, and a section to paste", "glassq sources kinds stripe"),
        ("why a request that was saved as it came is refused", "glassq sources test stripe event.http"),
        ("an old one, by the clock of its time", "glassq sources test stripe event.http --now 2026-03-01T12:00:00Z"),
    ),
)
@as_json
@click.pass_context
def sources(context: click.Context, as_json: bool) -> None:
    """Who may send pings: how many came, which were refused and why, which secret is in use."""
    if context.invoked_subcommand is None:
        _list(context.find_object(App) or App(None, os.environ), as_json)


@sources.command()
@click.argument("name", metavar="[KIND]", required=False, shell_complete=completion.kinds)
@as_json
@pass_app
def kinds(app: App, name: str | None, as_json: bool) -> None:
    """Which senders can be a source, or all about one: where its secret is, what it sends, a section to paste."""
    from glassq.operations import kinds as catalogue

    if name is None:
        _tell_kinds(catalogue.kinds(), as_json)
        return
    found = catalogue.kind(name, _secrets_directory(app))
    if as_json:
        print_json(found.document())
        return
    out = console()
    out.print(line(found.preset.title), style="bold")
    print_facts(out, found.facts)
    # to be copied: never broken into lines
    out.print(f"\n{found.section}", soft_wrap=True)
    if found.trial:
        out.print("\nA secret to try it with, until you have the sender's:", style="dim")
        out.print(f"    {found.trial}", soft_wrap=True)


@sources.command()
@click.argument("name", metavar="NAME", shell_complete=completion.sources)
@click.argument("file", metavar="FILE|-", shell_complete=completion.files)
@click.option("--now", metavar="TIME", help="Verify it by this time: RFC 3339, or Unix seconds.")
@as_json
@pass_app
def test(app: App, name: str, file: str, now: str | None, as_json: bool) -> int:
    """Would this request be taken, and if not, why?

    FILE holds a whole request as it came over the wire, head and body, as nc, mitmproxy or a proxy's log saves it.
    Neither a secret nor a signature that would be right is ever printed. Exit 0: it would be taken; 1: it would not.
    """
    from glassq.operations import request_test

    moment = request_test.moment_of(now) if now is not None else app.operations.clock().timestamp()
    verdict = request_test.examine(app.operations, name, read_input(file, MAX_SAVED), moment)
    if as_json:
        print_json({**verdict.document(), "todo": [app.adapt(words) for words in verdict.todo]})
    else:
        _tell(app, verdict)
    return 0 if verdict.taken else 1


# -- as people read it -------------------------------------------------------------------------------------------------


def _secrets_directory(app: App) -> Path:
    """That of the settings; the installed one where there are none, or wrong ones: the kinds are known without."""
    from glassq.operations import kinds as catalogue

    try:
        return catalogue.secrets_directory(app.settings)
    except SettingsError:
        return catalogue.INSTALLED


def _tell_kinds(found: list[KindOfSource], as_json: bool) -> None:
    if as_json:
        print_json({"kinds": [each.document() for each in found]})
        return
    rows = [
        (
            each.preset.name,
            each.preset.title,
            ", ".join(each.needs) or "-",
            "" if each.preset.verified else "unverified",
        )
        for each in found
    ]
    out = console()
    print_table(out, table("", ("kind", "sender", "needs", ""), rows))
    out.print("A section to paste, and where the secret is: `glassq sources kinds KIND`.")
    if not all(each.preset.verified for each in found):
        out.print("unverified: the rule is the sender's own, but no signed ping of it was at hand for a test.")
    out.print('For another sender: kind = "hmac", "token", "none" or "custom", in docs/sources.md.')


def _list(app: App, as_json: bool) -> None:
    found = operation.snapshot(app.operations)
    if as_json:
        print_json(app.adapt_hints(found.document()))
        return
    out = console()
    if not found.rows:
        out.print("the settings name no source: `glassq sources kinds` lists what can be one")
        return
    columns = ("source", "kind", "path", "pings", "last", "refused", "clock", "secrets, last used")
    unused = "never" if found.reloaded is None else f"not for {span(found.reloaded)}"
    print_table(out, table("", columns, (_cells(row, unused) for row in found.rows), wraps="refused"))
    if found.counting is None:
        out.print(f"nothing is counted: {line(found.note)}", style="dim")
    else:
        out.print(f"counted for {span(found.counting)}, since glassq-web was started", style="dim")
        if found.reloaded is not None:
            out.print(f"uses of secrets: for {span(found.reloaded)}, since they were read again", style="dim")
    print_hints(out, map(app.adapt, found.todo))


def _cells(row: SourceRow, unused: str) -> tuple[object, ...]:
    """`unused` says how long a secret that nobody used is known to be unused."""
    named = (row.name, row.kind, row.path)
    if row.counted is None:
        return (*named, "?", "?", "takes no pings" if row.problem else "?", "?", "?")
    seen = row.counted
    often = sorted(seen.refused.items(), key=lambda item: -item[1])
    refused = ", ".join(f"{count} {reason}" for reason, count in often)
    return (*named, seen.pings, _ago(seen.last_ping), refused or "-", _clock(seen), _secrets(seen, unused))


def _ago(age: float | None) -> str:
    return "never" if age is None else f"{span(age)} ago"


def _clock(seen: SourceReport) -> str:
    """The last skew, and the worst where it differs."""
    if seen.skew is None:
        return "-"
    worst = seen.max_skew
    more = f" (at most {round(worst):+d}s)" if worst is not None and round(worst) != round(seen.skew) else ""
    # rounded to an integer: a float may be shown as -0
    return f"{round(seen.skew):+d}s{more}"


def _secrets(seen: SourceReport, unused: str) -> str:
    used = [unused if age is None else _ago(age) for age in seen.secrets]
    if len(used) == 1:
        return used[0]
    return ", ".join(f"{number}: {when}" for number, when in enumerate(used, 1)) or "-"


def _tell(app: App, verdict: TestedRequest) -> None:
    out = console()
    style = "green" if verdict.taken else "bold red"
    out.print(line(verdict.said), style=style)
    rows = [(name, value) for name, value in verdict.facts]
    print_facts(out, rows)
    print_hints(out, map(app.adapt, verdict.todo))
