"""A group of commands that answers a mistyped one with the one that may be meant."""

from __future__ import annotations

import difflib

import click

from glassq.errors import InvalidRequest


class CommandGroup(click.Group):
    """A command with subcommands, such as `glassq journal`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises InvalidRequest for a word that is no command."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            near = difflib.get_close_matches(name.lower(), self._shown(ctx), n=1)
            meant = (
                f"did you mean `{ctx.command_path} {near[0]}`?" if near else f"`{ctx.command_path} --help` lists them"
            )
            raise InvalidRequest(f"{ctx.info_name} has no command {name}; {meant}")
        return super().resolve_command(ctx, args)

    def _shown(self, ctx: click.Context) -> list[str]:
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        return [name for name, command in commands.items() if command is not None and not command.hidden]
