"""What commands say of tubes and push queues that are paused or go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli.output import line, print_json
from glassq.operations.words import span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def tell_paused(
    kind: str,
    held: str,
    paused: Mapping[str, bool],
    lasting: str,
    as_json: bool,
    seconds: float | None = None,
    *,
    kept: bool = False,
    longer: Sequence[str] = (),
) -> int:
    """Says which tubes or queues (`kind`) are paused, and for how long that holds; returns the exit code.

    `held` is what they hold, `lasting` what else can be done. `kept`: the engine does not forget it. `longer` are
    those that are paused for longer, and stay so.
    """
    if as_json:
        told = {**paused, **dict.fromkeys(longer, True)}
        print_json({f"{kind}s": [{kind: name, "paused": done} for name, done in told.items()]})
    span_words = f" for {span(seconds)}" if seconds else ""
    for name, done in paused.items():
        if not done:
            nothing = f"the queue has nothing to pause: it holds no {held}, and no glassq-worker waits on it"
            click.echo(f"glassq: {kind} {line(name)}: {nothing}; {lasting}", err=True)
        elif not as_json:
            click.echo(f"{kind} {line(name)} is paused{span_words}: what runs goes on, the rest waits")
    if not as_json:
        for name in longer:
            click.echo(f"{kind} {line(name)} is paused for longer than that, and stays so")
    if any(paused.values()) and not as_json and not kept:
        ends = f"the queue forgets it when it is restarted, and perhaps while a {kind} holds no {held}"
        click.echo(f"! {ends}; {lasting}")
    return int(not all(paused.values()))


def tell_resumed(kind: str, resumed: Mapping[str, bool], as_json: bool) -> None:
    """Says which tubes or queues (`kind`) go on."""
    if as_json:
        print_json({f"{kind}s": [{kind: name, "resumed": done} for name, done in resumed.items()]})
        return
    for name, done in resumed.items():
        click.echo(f"{kind} {line(name)} " + ("goes on" if done else "was not paused"))
