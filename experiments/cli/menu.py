"""How commands are listed in the help: in groups, each with examples, and a usage line that reads."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

TRAIN = "Train"
LOOK = "Look at runs"
RESULTS = "Use results"
KNOW = "Know what there is"
CLUSTERS = "Clusters and services"
FIRST = """First steps:
ham sweep quickstart --dry-run   list what would be trained
ham sweep quickstart             train a small table
ham table runs/quickstart        print it

`ham COMMAND -h` shows the arguments of a command, with examples."""


class ListedCommand(TyperCommand):
    """A command whose usage line shows its arguments as they are documented."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words behind the command's name."""
        return ["[OPTIONS]", *(shown(one) for one in self.params if one.param_type_name == "argument")]


def shown(argument: Any) -> str:
    """Return an argument as usage lines have it, in brackets if it can be left out."""
    text = argument.metavar or argument.name.upper()
    return text if argument.required or text.startswith("[") else f"[{text}]"


def listed(panel: str, *examples: str) -> dict[str, Any]:
    """Return the arguments of ``app.command`` that place a command in a group and show examples below its help."""
    return {"cls": ListedCommand, "rich_help_panel": panel, "epilog": "\n".join(["Examples:", *examples])}
