"""A mirror of the metrics in Weights & Biases. The truth is `metrics.jsonl`; nothing here can stop a run."""

from __future__ import annotations

import logging
import netrc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .spec import Spec

log = logging.getLogger(__name__)


def resolve_mode(wanted: str) -> str:
    """``auto`` is online where credentials are found, else offline; other modes stand."""
    if wanted != "auto":
        return wanted
    return "online" if os.environ.get("WANDB_API_KEY") or _in_netrc() else "offline"


def _in_netrc() -> bool:
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class WandbMirror:
    """Mirrors records into one W&B run whose id is stable over restarts: identity and seed.

    Any error of W&B is logged once and ends the mirror, never the run.

    Args:
        spec: The run.
        identity: Its identity hash.
        folder: The run directory; W&B's own files go below it.
        group: W&B group, so that dashboards average over seeds.
    """

    def __init__(self, spec: Spec, identity: str, folder: Path, group: str):
        self._run: Any = None
        mode = resolve_mode(spec.tracking.wandb)
        if mode == "disabled":
            return
        try:
            import wandb

            self._run = wandb.init(
                mode=mode,  # pyright: ignore[reportArgumentType]
                dir=str(folder),
                id=f"{identity}-s{spec.seed}",
                resume="allow" if mode == "online" else None,
                entity=spec.tracking.entity,
                project=spec.tracking.project or "ham-suite",
                name=folder.name,
                group=group,
                config={**spec.model_dump(), "identity": identity},
                settings=wandb.Settings(
                    silent=True, console="off", disable_git=True, x_disable_stats=True, init_timeout=20
                ),
            )
        except Exception as error:  # a mirror must not cost a run, whatever W&B raises
            self._give_up(error)

    def log(self, record: dict[str, Any]) -> None:
        """Mirror the numbers of one record at its step."""
        if self._run is None:
            return
        prefix = f"event/{record['event']}/" if record["kind"] == "event" else ""
        numbers = {f"{prefix}{k}": v for k, v in record.items() if isinstance(v, (int, float)) and k != "step"}
        try:
            self._run.log(numbers, step=record.get("step"))
        except Exception as error:
            self._give_up(error)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the result into the run's summary and close it."""
        if self._run is None:
            return
        try:
            self._run.summary.update({k: v for k, v in summary.items() if isinstance(v, (int, float, str))})
            self._run.finish()
        except Exception as error:
            self._give_up(error)
        self._run = None

    def _give_up(self, error: Exception) -> None:
        log.warning("W&B is off for this run (%s: %s); metrics.jsonl has everything", type(error).__name__, error)
        self._run = None
