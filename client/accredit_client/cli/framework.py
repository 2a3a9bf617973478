"""How commands are put together: groups that load late, and help that ends with an example.

Help is plain text: it is read in terminals, pipes and logs alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

WHOLE = 1000  # characters of a summary: all of it; wrapped where it is written


class Group(TyperGroup):
    """A group of commands. Called without a command it shows its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; none at all mean ``--help``."""
        return super().parse_args(ctx, args or ["--help"])

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the overview, each command with its whole first sentence."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(n, one.get_short_help_str(WHOLE)) for n, one in found if one])


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is, and what the overview says of it."""

    module: str
    summary: str


class LateGroup(Group):
    """A group whose commands are imported when they are used, and only named before."""

    entries: Mapping[str, Entry]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (typer's signature)
        """The commands, in the order of the overview."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 (typer's signature)
        """Import a command."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        found = typer.main.get_command(import_module(entry.module).app)
        if isinstance(found, Group):
            return found
        # A module with a few commands of the first level: this is one of them.
        return found.commands[cmd_name] if isinstance(found, TyperGroup) else found

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 (the same)
        """Write the overview."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self.entries.items()])


def group(summary: str) -> typer.Typer:
    """A group of commands of its own: ``accredit agent …``."""
    made = typer.Typer(cls=Group, help=summary, **_PLAIN)
    made.callback()(lambda: None)  # stays a group even with one command
    return made


def top_level() -> typer.Typer:
    """A module whose commands stand on the first level: ``accredit login``."""
    return typer.Typer(**_PLAIN)


def example(*lines: str) -> str:
    """The end of a command's help."""
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


_PLAIN: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}
