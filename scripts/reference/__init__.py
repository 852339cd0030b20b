"""The reference pages of the documentation, written from schema, registry, command line and docstrings.

`python -m scripts.reference` writes them anew; a test says when they are stale.
"""

from __future__ import annotations

from pathlib import Path

from . import api, commands, configuration, loops, methods

DOCS = Path(__file__).resolve().parents[2] / "docs"
REGENERATE = "python -m scripts.reference"


def pages() -> dict[str, str]:
    """Return the text of every generated page, by its path below `DOCS`."""
    written = {
        "reference/command_line.md": commands.page(),
        "reference/configuration.md": configuration.page(),
        "reference/table_file.md": configuration.table_file(),
        "reference/profile.md": configuration.profile(),
        **{f"reference/methods/{name}.md": text for name, text in methods.pages().items()},
        **{f"reference/api/{name}.md": text for name, text in api.pages().items()},
    }
    shown = DOCS / loops.PAGE
    written[loops.PAGE] = loops.renewed(shown.read_text(encoding="utf-8"))
    return {name: text.rstrip() + "\n" for name, text in written.items()}


def stale(found: dict[str, str]) -> list[Path]:
    """Return the files of generated folders that no generated page is written to."""
    folders = (DOCS / "reference/methods", DOCS / "reference/api")
    return [path for folder in folders for path in folder.glob("*.md") if str(path.relative_to(DOCS)) not in found]
