"""Writers of a `Table` as LaTeX or HTML; equal tables give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from .tex import MISSING, is_missing, tex
from .values import Table, TableCell, TableGrid, spans


def latex(table: Table) -> str:
    """Write a table as one ``table`` environment per grid, with the notes below the last.

    It needs the packages booktabs and graphicx.
    """
    lines: list[str] = []
    for number, grid in enumerate(table.grids, 1):
        caption = ": ".join(filter(None, (table.title, grid.heading)))
        name = label(table.name) + (f"-{number}" if len(table.grids) > 1 else "")
        lines += [r"\begin{table}[t]", r"\centering\footnotesize\setlength{\tabcolsep}{3pt}"]
        lines += [rf"\caption{{{tex(caption)}}}", rf"\label{{tab:{name}}}", *fitted(_tex_grid(grid))]
        if number == len(table.grids):
            lines += [r"\par\medskip", r"\begin{minipage}{\linewidth}\footnotesize\sloppy"]
            lines += [tex(note) + r"\par" for note in (*table.warnings, *table.caption)]
            lines += [tex(MISSING) + r"\par"] if is_missing("\n".join(lines)) else []
            lines += [r"\end{minipage}"]
        lines += [r"\end{table}", ""]
    return "\n".join(lines)


def fitted(lines: list[str]) -> list[str]:
    """Make a ``tabular`` narrower, with its letters, if it is wider than the text; needs the graphicx package."""
    width = r"\ifdim\width>\linewidth\linewidth\else\width\fi"
    return [rf"\resizebox{{{width}}}{{!}}{{%", *lines[:-1], lines[-1] + "}"]


def _tex_grid(grid: TableGrid) -> list[str]:
    lines = [rf"\begin{{tabular}}{{{'l' * len(grid.header)}}}", r"\toprule"]
    if any(group for group, _ in spans(grid)):
        first, above, rules = 1, [], []
        for group, number in spans(grid):
            above.append(rf"\multicolumn{{{number}}}{{c}}{{{tex(group)}}}")
            if group:
                rules.append(rf"\cmidrule(lr){{{first}-{first + number - 1}}}")
            first += number
        lines += [" & ".join(above) + r" \\", " ".join(rules)]
    lines += [" & ".join(tex(head.label) for head in grid.header) + r" \\", r"\midrule"]
    for line in grid.rows:
        if line.opens_group and line is not grid.rows[0]:
            lines.append(r"\addlinespace")
        lines.append(" & ".join(map(_tex_cell, line.cells)) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _tex_cell(cell: TableCell) -> str:
    value = tex(cell.text)
    return rf"\textbf{{{value}}}" if cell.side else value


def label(name: str) -> str:
    """Return a name as the label of a float."""
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in name)


def html(table: Table, links: Mapping[str, str] | None = None) -> str:
    """Write a table as a fragment of HTML: one ``table`` per grid, then warnings and caption, without style.

    Args:
        table: The table.
        links: Where the names of rows lead, on a page that has the title already; None: the table stands alone.
    """
    title = "" if links is not None else table.title
    heads = [", ".join(filter(None, [title, grid.heading])) or table.title for grid in table.grids]
    parts = [_html_grid(grid, head, links or {}) for grid, head in zip(table.grids, heads, strict=True)]
    parts += [f'<p class="warning">{_prose(warning)}</p>' for warning in table.warnings]
    parts += [f'<p class="note">{_prose(paragraph)}</p>' for paragraph in table.caption]
    return "\n".join(parts) + "\n"


def _prose(value: str) -> str:
    return escape(value).replace(" %", "&nbsp;%")


def _html_grid(grid: TableGrid, title: str, links: Mapping[str, str]) -> str:
    head = ""
    if any(group for group, _ in spans(grid)):
        cells = "".join(
            f'<th scope="colgroup" colspan="{number}">{escape(group)}</th>'
            if group
            else f'<td colspan="{number}"></td>'
            for group, number in spans(grid)
        )
        head = f'<tr class="groups">{cells}</tr>\n'
    starts, place = set(), 0
    for group, number in spans(grid):
        if group:
            starts.add(place)
        place += number
    heads = "".join(
        f'<th scope="col"{_class(start=i in starts)}>{escape(head.label)}</th>' for i, head in enumerate(grid.header)
    )
    rows = "\n".join(
        f"<tr{_class(open=line.opens_group)}>"
        + "".join(_html_cell(cell, i, i in starts, links) for i, cell in enumerate(line.cells))
        + "</tr>"
        for line in grid.rows
    )
    name = escape(title)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>\n<caption>{name}</caption>\n'
        f"<thead>\n{head}<tr>{heads}</tr>\n</thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _html_cell(cell: TableCell, place: int, start: bool, links: Mapping[str, str]) -> str:
    value = escape(cell.text)
    if place == 0 and cell.text in links:
        value = f'<a href="{escape(links[cell.text])}">{value}</a>'
    if place == 0:
        return f'<th scope="row">{value}</th>'
    content = f"<b>{value}</b>" if cell.side else value
    return f"<td{_class(up=cell.side > 0, down=cell.side < 0, start=start)}>{content}</td>"


def _class(**switches: bool) -> str:
    """Return the class attribute with the names that are switched on; empty without any."""
    names = [name for name, on in switches.items() if on]
    return f' class="{" ".join(names)}"' if names else ""
