"""Writes glassq's manual pages into a directory: `python tools/manual.py DIR`.

Their texts come from `--help` and from the comments in conf/glassq.toml, so nothing is written twice. Run it with the
interpreter of the environment where glassq is installed. SOURCE_DATE_EPOCH, if set, dates the pages.
Not by click-man: it drops examples, exit codes, files and "see also", does not escape roff, and would have to be
installed on every machine, as `tools/install` calls this.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glassq import __version__
from glassq.cli import main as program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SETTINGS = Path(__file__).parent.parent / "conf" / "glassq.toml"
DATE = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))

# What the daemons' --help does not say.
DAEMONS = {
    "glassq-web": (
        "the intake of glassq: takes pings and keeps them",
        {
            "Signals": [
                ("TERM", "Graceful shutdown: requests that have begun are answered first."),
                ("HUP", "Reload the settings in new worker processes; no ping is refused meanwhile."),
                ("TTIN, TTOU", "Start one worker process more, or stop one."),
            ],
            "Exit status": [
                ("0", "It was told to stop."),
                ("75", "The address is in use."),
                ("78", "The settings cannot be used."),
            ],
        },
    ),
    "glassq-tasks": (
        "takes tasks over HTTP, from any language",
        {
            "Signals": [
                ("TERM", "Graceful shutdown: requests that have begun are answered first."),
                ("HUP", "Reload the settings in new worker processes; no task is refused meanwhile."),
                ("TTIN, TTOU", "Start one worker process more, or stop one."),
            ],
            "Exit status": [
                ("0", "It was told to stop."),
                ("75", "The address is in use."),
                ("78", "The settings cannot be used."),
            ],
        },
    ),
    "glassq-console": (
        "the web console for operators",
        {
            "Signals": [
                ("TERM", "Stop: bulk runs end between two jobs, and what they did is recorded."),
                ("HUP", "Reload the settings; bulk runs end as at a stop."),
            ],
            "Exit status": [
                ("0", "It was told to stop."),
                ("75", "The address is in use."),
                ("78", "The settings cannot be used."),
            ],
        },
    ),
    "glassq-syncer": (
        "syncs the queue's files for everybody at once, and proves it",
        {
            "Signals": [("TERM, INT", "Stop.")],
            "Exit status": [
                ("0", "It was told to stop; with --prepare: beanstalkd can start."),
                ("1", "With --prepare: beanstalkd must not start; standard error says why."),
            ],
        },
    ),
    "glassq-worker": (
        "the pool of glassq: works deliveries",
        {
            "Signals": [
                (
                    "TERM, INT",
                    "Graceful shutdown: the worker processes finish their deliveries. A second signal acts as QUIT.",
                ),
                ("QUIT", "Stop now: running deliveries go back to the queue, and no attempt is counted."),
                (
                    "HUP",
                    "Reload settings and handlers: each new worker process that is up replaces an old one, which "
                    "finishes its delivery. If a new one cannot start, the old ones stay.",
                ),
                ("TTIN, TTOU", "Start one worker process more, or stop one."),
                ("USR2", "Write the stacks of all processes to the log."),
            ],
            "Exit status": [("0", "It was told to stop."), ("78", "The settings, or a handler, cannot be used.")],
        },
    ),
}
FILES = [
    ("/etc/glassq/glassq.toml", "The settings; see glassq.toml(5)."),
    ("/etc/glassq/queue.yaml", "The push queues."),
    ("/etc/glassq/secrets/", "Secrets, one file each."),
    ("/var/lib/glassq/ledger.db", "The ledger: what happened to each delivery."),
    ("/var/lib/glassq-beanstalkd/", "The queue."),
    ("/var/spool/glassq/", "The journal: pings that the queue could not prove to keep."),
]
ENVIRONMENT = [("GLASSQ_CONFIG", "The settings file, unless --config names one.")]

_SPECIAL = {"\\": r"\(rs", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}


def escaped(text: str) -> str:
    """The text, escaped so that roff prints exactly these characters."""
    plain = "".join(_SPECIAL.get(char, char if char.isascii() else f"\\[u{ord(char):04X}]") for char in text)
    return rf"\&{plain}" if plain.startswith(".") else plain


def running(text: str) -> str:
    """The same for prose, on one line, with words in backticks set in bold."""
    words = " ".join(text.split())
    return re.sub(r"\\\(ga(.+?)\\\(ga", r"\\fB\1\\fR", escaped(words))


class Page:
    """One page: roff, line by line."""

    def __init__(self, name: str, number: int, says: str) -> None:
        self.file = f"{name}.{number}"
        self.lines = [f'.TH {escaped(name.upper())} {number} {DATE} "glassq {escaped(__version__)}" "glassq manual"']
        # do not hyphenate names of commands and files, and do not justify lines
        self.lines += [".nh", ".ad l"]
        self.section("Name")
        self.lines.append(f"{escaped(name)} \\- {running(says).removesuffix('.')}")

    def section(self, title: str) -> None:
        self.lines.append(f".SH {escaped(title.upper())}")

    def part(self, title: str) -> None:
        self.lines.append(f'.SS "{escaped(title)}"')

    def prose(self, text: str) -> None:
        """Paragraphs. One that begins with a line of "\\b" keeps its line breaks, as in click's help."""
        paragraphs = [paragraph for paragraph in inspect.cleandoc(text).split("\n\n") if paragraph.strip()]
        for number, paragraph in enumerate(paragraphs):
            before = [".PP"] if number else []
            if paragraph.startswith("\b"):
                self.lines += [*before, *_kept(paragraph.lstrip("\b\n"))]
            else:
                self.lines += [*before, running(paragraph)]

    def items(self, rows: Iterable[tuple[str, str]]) -> None:
        for term, words in rows:
            self.lines += [".TP", rf"\fB{escaped(term)}\fR", running(words) or r"\&"]

    def usage(self, text: str) -> None:
        # people type usage lines: keep them on one line
        self.lines += [".nf", rf"\fB{escaped(text)}\fR", ".fi"]

    def write(self, directory: Path) -> None:
        (directory / self.file).write_text("\n".join(self.lines) + "\n", "ascii")


def _kept(text: str) -> list[str]:
    return [".nf", *(escaped(line) or r"\&" for line in text.splitlines()), ".fi"]


def pages() -> Iterator[Page]:
    root = click.Context(program.cli, info_name="glassq", **program.cli.context_settings)
    names = [name for names in program.SECTIONS.values() for name in names]
    commands = {name: command for name in names if (command := program.cli.get_command(root, name))}
    yield _overview(root, list(commands))
    for name, command in commands.items():
        yield _command(root, name, command)
    for name in DAEMONS:
        yield _daemon(name)
    yield _settings()


def _overview(root: click.Context, names: list[str]) -> Page:
    page = Page("glassq", 1, "takes webhook pings, keeps them, and works them later: the operator's commands")
    _explain(page, root)
    page.section("Commands")
    for title, listed in program.SECTIONS.items():
        rows = [(name, f"{program.COMMANDS[name][1]} See glassq-{name}(1).") for name in listed if name in names]
        if rows:
            page.part(title)
            page.items(rows)
    page.section("Exit status")
    # the table in the docstring of cli/main.py
    page.items(re.findall(r"^\| (\d+) +\| (.+?) +\|$", program.__doc__ or "", re.MULTILINE))
    page.section("Environment")
    page.items(ENVIRONMENT)
    page.section("Files")
    page.items(FILES)
    daemons = (f"{name}(8)" for name in DAEMONS)
    return _see(page, *(f"glassq-{name}(1)" for name in names), *daemons, "glassq.toml(5)")


def _command(root: click.Context, name: str, command: click.Command) -> Page:
    page = Page(f"glassq-{name}", 1, program.COMMANDS[name][1])
    context = click.Context(command, info_name=name, parent=root)
    _explain(page, context)
    if isinstance(command, click.Group):
        page.section("Commands")
        for child in command.list_commands(context):
            if (found := command.get_command(context, child)) and not found.hidden:
                page.part(f"{name} {child}")
                _explain(page, click.Context(found, info_name=child, parent=context), under=True)
    _epilog(page, command.epilog)
    page.section("Exit status")
    page.prose("0: done. 1: failed, at least in part. glassq(1) lists the other codes.")
    return _see(page, "glassq(1)", "glassq.toml(5)")


def _explain(page: Page, context: click.Context, *, under: bool = False) -> None:
    """Synopsis, description and options; without headings for a subcommand (`under` another command)."""
    command = context.command
    if not under:
        page.section("Synopsis")
    page.usage(" ".join([context.command_path, *command.collect_usage_pieces(context)]))
    if not under:
        page.section("Description")
    else:
        page.lines.append(".PP")
    page.prose(command.help or "")
    if not under:
        page.section("Options")
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    page.items(record for record in records if record and record[1])


def _epilog(page: Page, epilog: str | None) -> None:
    """The text after the options: a title, and lines whose breaks are kept."""
    if epilog:
        title, _, lines = epilog.lstrip("\b\n").partition("\n")
        page.section(title.rstrip(":"))
        page.lines += _kept(lines)


def _daemon(name: str) -> Page:
    says, sections = DAEMONS[name]
    page = Page(name, 8, says)
    script = [sys.executable, str(Path(sys.executable).with_name(name)), "--help"]
    said = subprocess.run(script, env={**os.environ, "COLUMNS": "1000"}, capture_output=True, text=True, check=True)
    usage, description, options = said.stdout.split("\n\n", 2)
    page.section("Synopsis")
    page.usage(usage.removeprefix("usage: "))
    page.section("Description")
    page.prose(description)
    page.section("Options")
    page.items(re.findall(r"^  (-.*?)  +(.*)$", options, re.MULTILINE))
    for title, rows in sections.items():
        page.section(title)
        page.items(rows)
    return _see(page, "glassq(1)", "glassq.toml(5)")


def _settings() -> Page:
    page = Page("glassq.toml", 5, "the settings of glassq")
    head, _, rest = SETTINGS.read_text().partition("\n\n")
    page.section("Description")
    page.prose(_uncommented(head.splitlines()))
    page.section("Settings")
    remarks: list[str] = []
    for line in rest.splitlines():
        # keys and sections without a default are comments in the file
        table, entry = re.fullmatch(r"(?:# )?(\[+[a-z.]+\]+)", line), re.fullmatch(r"(?:# )?([a-z_]+ = \S.*)", line)
        if table:
            page.part(table[1])
            page.prose(_uncommented(remarks))
        elif entry:
            page.items([(entry[1], _uncommented(remarks))])
        elif line and not line.startswith("# ---"):
            remarks.append(line)
            continue
        remarks = []
    return _see(page, "glassq(1)", *(f"{name}(8)" for name in DAEMONS))


def _uncommented(lines: Iterable[str]) -> str:
    return " ".join(line.removeprefix("#").strip() for line in lines)


def _see(page: Page, *others: str) -> Page:
    page.section("See also")
    page.lines.append(",\n".join(rf"\fB{escaped(other[:-3])}\fR{other[-3:]}" for other in others))
    return page


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for page in pages():
        page.write(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
