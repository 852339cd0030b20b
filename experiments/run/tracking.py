"""A mirror of the metrics in Weights & Biases. The truth is `metrics.jsonl`; nothing here can stop a run."""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.config.schema import Spec

log = logging.getLogger(__name__)

PATIENCE = 60.0  # seconds that starting or finishing a W&B run may take


_VARIABLES = {
    "mode": "WANDB_MODE",
    "project": "WANDB_PROJECT",
    "name": "WANDB_NAME",
    "group": "WANDB_RUN_GROUP",
    "dir": "WANDB_DIR",
    "silent": "WANDB_SILENT",
    "console": "WANDB_CONSOLE",
    "disable_git": "WANDB_DISABLE_GIT",
    "x_disable_stats": "WANDB_X_DISABLE_STATS",
    "init_timeout": "WANDB_INIT_TIMEOUT",
}


def _unless_set(**defaults: Any) -> dict[str, Any]:
    """Return defaults of the suite without those for which the user's environment has a variable of W&B."""
    return {key: value for key, value in defaults.items() if not os.environ.get(_VARIABLES[key])}


def resolve_mode(wanted: str) -> str:
    """Resolve ``auto``: what ``WANDB_MODE`` says, else online where credentials are found, else offline."""
    if wanted != "auto":
        return wanted
    if (said := os.environ.get("WANDB_MODE")) is not None and said:
        return said
    return "online" if os.environ.get("WANDB_API_KEY") or _in_netrc() else "offline"


def _in_netrc() -> bool:
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _patiently(call: Callable[[], Any]) -> Any:
    """Wait for a call, but not for ever: W&B keeps trying for hours where a server does not answer."""
    answers: Queue[tuple[Any, Exception | None]] = Queue()

    def ask() -> None:
        try:
            answers.put((call(), None))
        except Exception as error:  # raised again by the one who waits
            answers.put((None, error))

    Thread(target=ask, daemon=True).start()
    try:
        value, error = answers.get(timeout=PATIENCE)
    except Empty:
        raise TimeoutError(f"no answer in {PATIENCE:g} s") from None
    if error is not None:
        raise error
    return value


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
            self._run = _patiently(lambda: self._init(spec, identity, folder, group, mode))
        except Exception as error:  # a mirror must not cost a run, whatever W&B raises
            self._give_up(error)

    @staticmethod
    def _init(spec: Spec, identity: str, folder: Path, group: str, mode: str) -> Any:
        import wandb

        tracking = spec.tracking
        # what the configuration says comes first, then the user's environment, then what is usual here
        chosen = _unless_set(mode=mode, project="ham-suite", name=folder.name, group=group, dir=str(folder))
        chosen |= {"project": tracking.project} if tracking.project is not None else {}
        chosen |= {"mode": mode} if tracking.wandb != "auto" else {}
        settings = _unless_set(silent=True, console="off", disable_git=True, x_disable_stats=True, init_timeout=20)
        return wandb.init(
            id=f"{identity[:32]}-s{spec.seed}",
            resume="allow" if mode == "online" else None,
            entity=tracking.entity,
            config={**spec.model_dump(), "identity": identity},
            settings=wandb.Settings(**settings),
            **chosen,
        )

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
        except Exception as error:
            self._give_up(error)
        self.close(exit_code=0)

    def close(self, exit_code: int = 1) -> None:
        """Close a run that is still open, by default as one that did not finish."""
        if self._run is None:
            return
        run, self._run = self._run, None
        try:
            _patiently(lambda: run.finish(exit_code=exit_code))
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        log.warning("W&B is off for this run (%s: %s); metrics.jsonl has everything", type(error).__name__, error)
        self._run = None
