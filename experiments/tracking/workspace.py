"""The views of a dashboard as W&B keeps them, by the package wandb-workspaces, and the server that gets them.

All names and ids follow from the table and the view, so that the same command renews what it has made before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import category

from experiments.errors import SuiteError, UserError

from . import environment, process
from .dashboard import GROUP, View
from .panels import Panel

PACKAGE = "wandb-workspaces>=0.4.13,<0.5"
"""The extra ``dashboard``."""

_COLUMNS = 3
_FOUND = """query Views($entity: String, $project: String, $name: String) {
  project(name: $project, entityName: $entity) {
    allViews(viewType: "project-view", viewName: $name) { edges { node { id } } }
  }
}"""


def documents(table: str, views: Iterable[View], project: str, entity: str | None) -> list[dict[str, Any]]:
    """Return the views as W&B keeps them.

    Raises:
        UserError: if wandb-workspaces is not installed.
    """
    return [
        _model(table, view, project, entity or "").model_dump(by_alias=True, exclude_none=True, mode="json")
        for view in views
    ]


def save(table: str, views: Iterable[View], project: str, entity: str | None) -> list[str]:
    """Make the views at the server, or renew those that are there, and return their addresses.

    Raises:
        UserError: as `documents` and `environment.require_server`, and if there is no such project.
        SuiteError: if the server is dead or refuses.
    """
    _package()
    environment.require_server(project, entity)
    try:
        import wandb

        api = wandb.Api()
        return [_save(api, _model(table, view, project, entity or str(api.default_entity))) for view in views]
    except UserError:
        raise
    except Exception as error:  # whatever W&B raises
        raise SuiteError(f"W&B refuses ({process.reason(error)})", environment.server()) from error


def _save(api: Any, view: Any) -> str:
    from wandb_workspaces import _graphql  # pyright: ignore[reportMissingImports]
    from wandb_workspaces.workspaces import internal  # pyright: ignore[reportMissingImports]

    asked = {"entity": view.entity, "project": view.project, "name": view.name}
    project = _graphql.execute_graphql(api, _FOUND, asked).get("project")
    where = f"{view.entity}/{view.project}"
    if project is None:
        raise UserError("no such project at W&B; `ham track push DIR` makes it, --project names another one", where)
    for edge in project["allViews"]["edges"][:1]:
        view.id = edge["node"]["id"]
    internal.upsert_view2(view)
    return f"{_graphql.get_app_url(api).rstrip('/')}/{where}?nw={view.name[3:-2]}"


def _package() -> tuple[Any, Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as panels  # pyright: ignore[reportMissingImports]
        import wandb_workspaces.workspaces as workspaces  # pyright: ignore[reportMissingImports]
        from wandb_workspaces import expr  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError(f"needs wandb-workspaces ({error}); install it by `pip install '{PACKAGE}'`") from None
    return workspaces, panels, expr


def _model(table: str, view: View, project: str, entity: str) -> Any:
    workspaces, panels, expr = _package()
    sections = [
        workspaces.Section(
            name=section.name,
            is_open=True,
            layout_settings=workspaces.SectionLayoutSettings(
                columns=_COLUMNS, rows=-(-len(section.panels) // _COLUMNS)
            ),
            panels=[
                _named(_panel(panels, panel, view.most), _id(table, view.key, section.name, place))
                for place, panel in enumerate(section.panels)
            ],
        )
        for section in view.sections
    ]
    workspace = workspaces.Workspace(
        entity=entity,
        project=project,
        name=_title(view.name),
        auto_generate_panels=False,
        sections=sections,
        settings=workspaces.WorkspaceSettings(x_axis="epoch", max_runs=max(10, view.most)),
        runset_settings=workspaces.RunsetSettings(
            filters=view.filters,
            groupby=[_key(expr, group) for group in view.groups],
            order=[expr.Ordering(key) for key in (*_order(expr, view.groups), expr.Config("seed"))],
            pinned_columns=list(view.columns),
            group_colors={workspaces.GroupPath(*path): color for path, color in view.colors.items()},
        ),
    )
    workspace._internal_runset_id = _id(table, view.key, "runs")
    workspace._internal_name = f"nw-{_id(table, view.key)}-v"
    return workspace._to_model()


def _key(expr: Any, group: str) -> Any:
    return expr.Metric(GROUP) if group == GROUP else expr.Config(group)


def _order(expr: Any, groups: Iterable[str]) -> list[Any]:
    """Return what runs are sorted by: rows stand behind those that they are compared with."""
    return [_key(expr, key) for group in groups for key in (("base_row", "row") if group == "row" else (group,))]


def _title(name: str) -> str:
    """Leave out what the package takes for emojis, plus signs included."""
    return " ".join("".join(" " if category(char)[0] in "SC" else char for char in name).split())


def _id(*of: object) -> str:
    return hashlib.sha256("\0".join(map(str, of)).encode()).hexdigest()[:11]


def _named(panel: Any, name: str) -> Any:
    panel._id = name
    return panel


def _panel(panels: Any, panel: Panel, most: int) -> Any:
    averaged = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev", "max_runs_to_show": max(10, most)}
    if panel.kind == "text":
        return panels.MarkdownPanel(markdown=panel.text)
    if panel.kind == "bars":
        return panels.BarPlot(title=panel.title, metrics=list(panel.metrics), **averaged, max_bars_to_show=most)
    if panel.kind == "points":
        x, (y,) = panels.SummaryMetric(panel.over), map(panels.SummaryMetric, panel.metrics)
        return panels.ScatterPlot(title=panel.title, x=x, y=y, log_x=panel.log or None)
    if panel.kind == "lines":
        return panels.LinePlot(title=panel.title, x=panel.over, **_lines(panel.metrics), **averaged)
    if panel.kind == "parallel":
        axes = [*map(panels.Config, panel.settings), *map(panels.SummaryMetric, panel.metrics)]
        columns = [panels.ParallelCoordinatesPlotColumn(metric=axis) for axis in axes]
        return panels.ParallelCoordinatesPlot(title=panel.title, columns=columns)
    return panels.RunComparer(diff_only="split")


def _lines(metrics: Sequence[str]) -> dict[str, Any]:
    (metric,) = metrics
    return {"metric_regex": metric.replace("*", ".*")} if "*" in metric else {"y": [metric]}
