"""The commands that say what there is: methods, and keys of configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from experiments.errors import UserError, nearest

from . import complete, menu
from .options import AsJson

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
    as_json: AsJson = False,
) -> None:
    """List the methods, or describe one: paper, rule, deviations, options, published figures."""
    from experiments.config.methods import import_modules
    from results.numbers import paper

    from . import listing, terminal

    import_modules(imports or [], [Path()], "--import")
    found = [listing.find(name)] if name else listing.methods()
    if as_json:
        print(json.dumps([listing.as_dict(one, paper.of_method(one.name)) for one in found], indent=1))
        return
    print(
        listing.describe(found[0].name, paper.of_method(found[0].name)) if name else listing.overview(terminal.width())
    )


@app.command(
    **menu.listed(
        menu.KNOW,
        "ham config optimizer.lr",
        "ham config optimizer.ham",
        "ham config quickstart optimizer.lr=0.2",
        "ham config quickstart optimizer data.root --json",
    )
)
def config(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY|CONFIG]",
            help="A key, a section such as optimizer, or a configuration; default: all keys.",
            autocompletion=complete.keys,
        ),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY]... [KEY=VALUE]...", help="Behind a configuration: keys to show, default those set; settings."
        ),
    ] = None,
    all_keys: Annotated[bool, typer.Option("--all", help="Behind a configuration: show all keys.")] = False,
    as_json: AsJson = False,
) -> None:
    """Describe a key (meaning, range, default), or show what a configuration comes to, key by key and row by row."""
    from . import settings

    keys = settings.selected(what) if what else settings.known_keys()
    if keys:
        if words or all_keys:
            raise UserError("belongs behind a configuration, not behind a key", words[0] if words else "--all")
        single = len(keys) == 1 and not as_json
        listed = [settings.key_as_dict(key) for key in keys] if as_json else []
        shown = settings.one_key(keys[0]) if single else settings.many_keys(keys)
        print(json.dumps(listed, indent=1) if as_json else shown)
        return
    _show_configuration(str(what), words or [], all_keys, as_json)


def _show_configuration(name: str, words: list[str], all_keys: bool, as_json: bool) -> None:
    from experiments.config.files import find_config
    from experiments.config.overview import changes, resolved

    from . import settings
    from .loading import load

    try:
        find_config(name)
    except UserError:
        raise settings.no_such(name) from None
    loaded = load(name, [word for word in words if "=" in word])
    wanted = [word for word in words if "=" not in word]
    found = resolved(loaded)
    for word in wanted:
        if not any(key.path == word or key.path.startswith(f"{word}.") for key in found):
            raise UserError(f"is no key of this configuration{nearest(word, [key.path for key in found])}", word)
    keys = [key for key in found if key.own or all_keys]
    if wanted:
        keys = [key for key in found if any(f"{key.path}.".startswith(f"{word}.") for word in wanted)]
    rows = [] if wanted else changes(loaded)
    if as_json:
        print(json.dumps(settings.as_dict(loaded, keys, rows), indent=1, default=str))
    else:
        print(settings.configuration(loaded, keys, rows, whole=all_keys or bool(wanted)))
