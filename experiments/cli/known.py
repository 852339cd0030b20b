"""The commands that say what there is: methods, and keys of configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import complete, menu

app = typer.Typer()


@app.command(
    **menu.listed(menu.KNOW, "ham methods", "ham methods rigl", "ham methods mine --import my_package.methods")
)
def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A topology or representation; default: list all.", autocompletion=complete.methods
        ),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Module with methods of your own; may be repeated."),
    ] = None,
) -> None:
    """List the methods, or describe one: paper, rule, deviations, options, published figures."""
    from experiments.config.methods import import_modules
    from results.numbers import paper

    from . import listing

    import_modules(imports or [], [Path()], "--import")
    print(listing.describe(name, paper.of_method(name)) if name else listing.overview())
