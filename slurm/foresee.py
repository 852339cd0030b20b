"""What a job would refuse and its submission can know, so that no run waits in a queue for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.config.grid import at
from experiments.config.keys import dotted
from experiments.config.rules import CPU_ONLY, takes_gpu
from experiments.config.sweep import Cell
from experiments.errors import UserError

from .array import ArrayPlan
from .plan import resources_of
from .profile import Profile

_GPUS = {"gres", "gpus-per-socket", "tres-per-task"}
_MEMORY = {"mem", "mem-per-cpu", "mem-per-gpu"}


def check(cells: Sequence[Cell], chosen: Profile, *folders: Path) -> None:
    """Refuse runs that their jobs could not carry out, and folders that batch scripts cannot name.

    Args:
        cells: The runs.
        chosen: The profile.
        folders: Folders that batch scripts name.

    Raises:
        UserError: with one line per fault, and how many rows share it.
    """
    for folder in folders:
        _nameable(folder)
    problems: dict[str, list[str]] = {}
    for row, cell in {f"row {one.row!r}{at(one.column)}": one for one in cells}.items():
        try:
            _carried_out(cell, chosen)
        except UserError as error:
            problems.setdefault(str(error), []).append(row)
    if problems:
        shared = {text: f" and {len(rows) - 1} more" if rows[1:] else "" for text, rows in problems.items()}
        raise UserError("\n".join(f"{rows[0]}{shared[text]}: {text}" for text, rows in problems.items()))


def warned_early(arrays: Sequence[ArrayPlan], chosen: Profile) -> str:
    """Return a note on jobs that Slurm may warn as they begin, since it looks once a minute; an empty text for none."""
    shortest = min((array.resources.minutes for array in arrays), default=None)
    if shortest is None or 60 * (shortest - 1) > chosen.signal_seconds:
        return ""
    return (
        f"note: Slurm may warn a job up to a minute before signal_seconds ({chosen.signal_seconds} s) says, so jobs of "
        f"{shortest} min may be told to stop as they begin; write more hours"
    )


def unchanged(cells: Sequence[Cell]) -> None:
    """Refuse runs whose data, initial weights or own modules are not those they were submitted with.

    Args:
        cells: Runs of earlier submissions.

    Raises:
        UserError: naming the first such run.
    """
    from experiments.config.identity import identity_with_data

    for cell in {cell.identity: cell for cell in cells}.values():
        weights = cell.spec.model.weights
        if weights is not None and not Path(weights).exists():
            continue  # a run that has begun needs them no more
        if identity_with_data(cell.spec) != cell.identity:
            own = f", the code of {', '.join(cell.spec.imports)}" if cell.spec.imports else ""
            text = f"its data ({cell.spec.data.root or cell.spec.data.name}), model.weights{own} or settings"
            again = "`ham sweep CONFIG --cluster slurm` submits what is there now, as runs of their own"
            raise UserError(f"{text} are not those it was submitted with; put them back, or {again}", cell.path)


def _carried_out(cell: Cell, chosen: Profile) -> None:
    asked, runtime = resources_of(cell, chosen), cell.spec.runtime
    further = {key.replace("_", "-") for key in chosen.sbatch}
    key = "runtime.device" if runtime.device == "cuda" else "runtime.sync_batch_norm"
    if (runtime.device == "cuda" or runtime.sync_batch_norm) and not (chosen.gpus_per_rank or further & _GPUS):
        raise UserError("needs a GPU, and the profile asks for none; write gpus_per_rank: 1 there", key)
    if (problem := takes_gpu(cell.spec)) is not None and not (chosen.gpus_per_rank or further & _GPUS):
        text = "and the profile asks for none; write gpus_per_rank: 1 there"
        raise UserError(f"{problem.text}, {text} (--profile NAME); {CPU_ONLY}", dotted(problem.path))
    if problem is not None and runtime.device == "cpu":
        raise UserError(f"{problem.text}, and runtime.device is cpu; {CPU_ONLY}", dotted(problem.path))
    if cell.spec.resources.gpu_type is not None and not chosen.gpus_per_rank:
        raise UserError(
            "names a GPU, and the profile asks for none; write gpus_per_rank: 1 there", "resources.gpu_type"
        )
    if asked.mem_per_rank_gb is not None and (other := further & _MEMORY):
        raise UserError(f"and sbatch.{min(other)} of the profile exclude each other; remove one", "mem_per_rank_gb")
    ranks = asked.ranks
    if ranks == 1:
        return  # what one process refuses was found when the configuration was read
    from experiments import data
    from experiments.data.bundle import check_divisible

    batch = cell.spec.data.batch_size
    check_divisible(batch, batch, ranks, runtime.accumulate)
    check_divisible(batch, data.outline(cell.spec.data).last_batch, ranks, runtime.accumulate)


def _nameable(folder: Path) -> None:
    for char in str(folder):
        if char in "'\\%" or not char.isprintable():
            text = (
                f"holds {char!r}, which sbatch and its scripts do not take literally; use a folder without it (--out)"
            )
            raise UserError(text, repr(str(folder)))
