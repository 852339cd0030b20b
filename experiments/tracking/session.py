"""One run's conversation with W&B: one row of its history per line of ``metrics.jsonl``, from W&B's own count on.

W&B numbers the rows itself, and none is given a step: so the number of rows says which line comes next, nothing comes
out of order, and nothing is there twice. Offline, where nobody counts, a record begins at the first line and takes the
place of earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, TypeVar

from experiments.config.yaml_text import read_mapping
from experiments.rundir import names, outcome

from . import environment, metrics
from .content import Content, content
from .journal import Journal
from .tail import Tail

PATIENCE = 60.0  # seconds that W&B may take for what is left when a run ends
T = TypeVar("T")


class Session:
    """A run of W&B's, open until `finish`.

    Args:
        folder: The run's folder.
        mode: ``online`` or ``offline``.
        journal: The run's journal.
        tracking: Replaces keys of the section ``tracking`` of the specification.

    Attributes:
        sent: Number of rows that this session has added.
    """

    def __init__(self, folder: Path, mode: str, journal: Journal, **tracking: Any):
        self._folder, self._journal, self._mode = folder, journal, mode
        about = content(folder)
        self._run = self._open(about, read_mapping(folder / names.SPEC, quick=True)["tracking"] | tracking)
        self._id = about.id
        self._tail = Tail(folder / names.METRICS)
        self._first = self._run.starting_step  # the number of rows that the server has
        self._superseded = False
        self.sent = 0

    def _open(self, about: Content, tracking: Any) -> Any:
        import wandb

        chosen = environment.arguments(
            self._mode,
            tracking,
            name=about.name,
            group=about.group,
            job_type=about.job_type,
            tags=about.tags,
            dir=str(self._folder),
        )
        try:
            run = wandb.init(
                id=about.id,
                config=about.config,
                resume="allow" if self._mode == "online" else None,
                reinit="create_new",  # never another run's, whose end W&B did not take
                settings=wandb.Settings(**environment.settings()),
                **chosen,
            )
        except Exception:
            patiently(wandb.teardown)  # its service would take the run for one that is under way
            raise
        # a name that W&B summarises itself would be written over what the summary says
        for name, axis in metrics.AXES.items():
            run.define_metric(name, step_metric=axis, summary="none")
        run.define_metric("*", summary="none")
        return run

    def catch_up(self) -> None:
        """Give W&B the rows of all lines that it has not."""
        for index, line in self._tail.read():
            row = metrics.row(line)
            if index >= self._first:
                self._journal.given(index, row)
                self._run.log(row)
                self.sent += 1
            elif not self._journal.same(index, row) and "rewritten_from" not in self._run.config:
                self._run.config.update({"rewritten_from": index})
        if not self._superseded:
            self._supersede()
            self._superseded = True

    def finish(self) -> int:
        """Give W&B the rest, the summary of a finished run, and whether it is one; return the number of lines.

        Raises:
            TimeoutError: if W&B does not take it all in time.
        """
        self.catch_up()
        result = outcome.read_result(self._folder)
        if result is not None:
            self._run.summary.update(metrics.summary(result))
        patiently(lambda: self._run.finish(exit_code=0 if result is not None else 1))
        return self._tail.count

    def _supersede(self) -> None:
        """Mark earlier offline records of the run as synced, as W&B does: this one has all that is in them."""
        own = Path(self._run.dir).parent
        for record in own.parent.glob(f"offline-run-*/run-{self._id}.wandb"):
            if record.parent != own:
                record.with_suffix(".wandb.synced").touch()


def patiently(call: Callable[[], T]) -> T:
    """Wait for a call of W&B's, but not for ever: it keeps trying for hours where a server does not answer.

    Raises:
        TimeoutError: after `PATIENCE` seconds.
    """
    answers: Queue[tuple[T, None] | tuple[None, Exception]] = Queue()

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
    return value  # pyright: ignore
