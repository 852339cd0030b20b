"""The typed configuration tree. Values come from files: `configs/base.yaml` is the only place of defaults.

Types are strict (text is never read as a number) and unknown keys are refused. A key that is added later declares what
the code did before it existed, ``Field(json_schema_extra={"neutral": value})``: runs at that value keep their identity.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # turn the direction of what follows


def _module_name(text: str) -> str:
    if not all(part.isidentifier() for part in text.split(".")):
        raise ValueError(f"{text!r} is not a module name, such as my_package.methods")
    return text


def _folder_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", text):
        raise ValueError(f"{text!r} is not a folder name: up to 80 letters, digits, '.', '_' or '-', no '.' first")
    return text


def _one_line(text: str) -> str:
    steering = [char for char in text if unicodedata.category(char) in ("Cc", "Zl", "Zp") or char in _TURNING]
    if steering:
        raise ValueError(f"{text[:40]!r} must be one line of printable characters, but has U+{ord(steering[0]):04X}")
    return text


def _neutral(value: Any) -> Any:
    """Declare what the code did before a key existed."""
    return Field(json_schema_extra={"neutral": value})


Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Line = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
Hours = Annotated[float, Field(gt=0, le=8784)]  # of a year
EventKind = Literal[
    "initial", "update", "compress", "decompress", "threshold", "reset", "cut", "prune"
]  # those that change entries; others cannot be demanded


class Section(BaseModel):
    """A part of the tree: strict, frozen, no unknown keys, finite numbers."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class DataSpec(Section):
    """Data set and how it is split. Counts are images; `root` None is the embedded copy.

    `batch_size` counts the images of one optimizer step, over all ranks and micro-batches.
    """

    name: str
    root: Text | None
    image_size: Annotated[Annotated[int, Field(ge=1, le=10_000)] | None, _neutral(None)]
    batch_size: Positive
    drop_last: Annotated[bool, _neutral(True)]
    validation: Annotated[int, Field(ge=0)]
    train_limit: Positive | None
    evaluate_on: Literal["test", "validation"]
    workers: Annotated[int, Field(ge=0, le=1024)]


class ModelSpec(Section):
    """Network: one of the suite's, ``torchvision:NAME`` or ``timm:NAME``, with arguments of that library's builder.

    `weights` is a file to start from instead of fresh weights; its content counts for the identity, not its place.
    `recalibrate` counts training batches over which batch statistics are computed anew before the final evaluation.
    """

    name: str
    options: Annotated[dict[str, bool | int | float | str | None], _neutral({})]
    init: Annotated[Literal["default", "kaiming_fan_in", "kaiming_fan_out"], _neutral("default")]
    weights: Annotated[Text | None, _neutral(None)]
    recalibrate: Annotated[Annotated[int, Field(ge=0, le=1_000_000)], _neutral(0)]


class MethodSpec(Section):
    """A topology or representation by name, with the method's own options beside it."""

    model_config = ConfigDict(extra="allow")

    name: str

    _options: Any = PrivateAttr(None)

    @property
    def options(self) -> Any:
        """The method's own options, an instance of its `Options`; only in a resolved specification."""
        assert self._options is not None, "options are built when a configuration is resolved"
        return self._options

    def with_options(self, options: Any, **fields: Any) -> Self:
        """Return a copy that holds these options, as one object and as keys beside the section's own."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        section = type(self).model_construct(**{**own, **fields}, **dataclasses.asdict(options))
        section._options = options
        return section


class TopologySpec(MethodSpec):
    """Which weights are active. `sparsity` is the target share of zeros over all prunable weights, in [0, 1).

    Resolution sets it to 0 where neither topology nor representation aims at a sparsity.
    """

    sparsity: Annotated[float, Field(ge=0, lt=1)]


class RepresentationSpec(MethodSpec):
    """How an active weight is parametrised."""


class HamSpec(Section):
    """Hyperbolic Aware Minimization around the optimizer; the defaults are those of `ham.HAM`."""

    alpha: float = 200.0
    beta: Annotated[float, Field(ge=0)] = 1.0e-3
    sign: Literal["after", "before"] = "after"
    max_weight_norm: Annotated[float, Field(gt=0)] | None = 1000.0
    scalars: bool = False
    scale_free: Annotated[bool, _neutral(False)] = False


class SamSpec(Section):
    """Sharpness-aware minimization around the optimizer, HAM included; the defaults are those of `ham.SAM`.

    Attributes:
        perturbation: With several ranks, that of the averaged gradient, or that of each rank's own images.
    """

    rho: Annotated[float, Field(ge=0)] = 0.05
    adaptive: bool = False
    eta: Annotated[float, Field(ge=0)] = 0.01
    gradient: Literal["perturbed", "first"] = "perturbed"
    perturbation: Literal["reduced", "local"] = "reduced"


class OptimizerSpec(Section):
    """Base optimizer. `weight_decay` is what that optimizer makes of it; `weight_decay_on` says what it acts on."""

    name: Literal["sgd", "adamw", "adam", "rmsprop", "nadam"]
    lr: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    nesterov: bool
    weight_decay: Annotated[float, Field(ge=0)]
    weight_decay_on: Literal["weights", "all"]
    clip_grad_norm: Annotated[float, Field(gt=0)] | None
    ham: HamSpec | None
    sam: Annotated[SamSpec | None, _neutral(None)]
    ema_decay: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, _neutral(None)]
    sparse_opt: Annotated[Literal["layer", "network"] | None, _neutral(None)]


class LossSpec(Section):
    """Cross-entropy, with part of the target spread over all classes."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1), _neutral(0.0)]


class ScheduleSpec(Section):
    """Learning rate over time; `warmup_epochs` (may be a fraction) are part of `epochs`.

    `milestones` (epochs, ascending) and `gamma` belong to ``multistep``.
    """

    name: Literal["cosine", "constant", "triangular", "multistep"]
    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    warmup_epochs: Annotated[float, Field(ge=0)]
    per: Annotated[Literal["step", "epoch"], _neutral("step")]
    milestones: Annotated[list[Annotated[float, Field(gt=0)]], _neutral([])]
    gamma: Annotated[float, Field(gt=0, lt=1), _neutral(0.1)]


Device = Literal["auto", "cpu", "cuda"]


class RuntimeSpec(Section):
    """Device, memory layout, precision and how a step is computed; `rank_timeout` in minutes."""

    device: Device
    channels_last: bool
    amp: Literal["none", "bf16", "fp16"]
    accumulate: Annotated[Positive, _neutral(1)]
    compile: Annotated[bool, _neutral(False)]
    sync_batch_norm: Annotated[bool, _neutral(False)]
    deterministic: Annotated[bool, _neutral(False)]
    tf32: Annotated[Literal["none", "convolutions", "all"], _neutral("convolutions")]
    rank_timeout: Annotated[float, Field(gt=0, le=100_000)]


class CheckpointSpec(Section):
    """When to write a checkpoint, besides the end of an epoch (None is never), and how many to keep."""

    every_steps: Positive | None
    every_minutes: Annotated[float, Field(gt=0)] | None
    keep: Positive


class ResourcesSpec(Section):
    """What a cluster job of this run asks for; None is the cluster profile's. `hours` is the time limit of one job.

    `cpu_only` says that a run which takes a GPU by its size or precision is to be trained without one.
    """

    nodes: Annotated[int, Field(ge=1, le=100_000)] | None
    ranks_per_node: Annotated[int, Field(ge=1, le=1024)] | None
    hours: Hours | None
    partition: Line | None = None
    qos: Line | None = None
    constraint: Line | None = None
    gpu_type: Line | None = None
    cpus_per_rank: Positive | None = None
    mem_per_rank_gb: Annotated[float, Field(gt=0, le=100_000)] | None = None
    cpu_only: bool = False


class EventCheck(Section):
    """What a run must have recorded to count as that method: `at_least` events by the fraction `by` of training."""

    at_least: Positive
    by: Annotated[float, Field(gt=0, le=1)] = 1.0


class ChecksSpec(Section):
    """Conditions without which a finished run is a failure."""

    events: dict[EventKind, EventCheck]


class EvaluateSpec(Section):
    """What the final evaluation keeps besides its numbers, which it does not change: no part of the identity."""

    predictions: Annotated[bool, _neutral(False)]


class TrackingSpec(Section):
    """Weights & Biases as a mirror of the files on disk."""

    wandb: Literal["auto", "online", "offline", "disabled"]
    entity: Text | None
    project: Text | None


class Spec(Section):
    """One run, completely specified."""

    imports: list[Annotated[str, AfterValidator(_module_name)]]
    label: Line | None
    data: DataSpec
    model: ModelSpec
    topology: TopologySpec
    representation: RepresentationSpec
    optimizer: OptimizerSpec
    loss: LossSpec
    schedule: ScheduleSpec
    runtime: RuntimeSpec
    checkpoint: CheckpointSpec
    resources: ResourcesSpec
    checks: ChecksSpec
    evaluate: EvaluateSpec
    tracking: TrackingSpec
    seed: Annotated[int, Field(ge=0)]


class CellRule(Section):
    """Overrides for some cells of a table.

    Attributes:
        when: Which cells: ``row`` and column keys, each with a value or a list of values.
        set: Dotted key to value, as in a row.
    """

    when: Annotated[dict[str, Any], Field(min_length=1)]
    set: Annotated[dict[str, Any], Field(min_length=1)]


class TuningSpec(Section):
    """How the settings of rows are chosen before the table is trained.

    Attributes:
        grid: Dotted key to the values that are tried; settings are all their combinations.
        rows: Label of a row to a grid of its own, which replaces the common one; null leaves the row as it stands.
        at: Column key to the value at which settings are chosen for all values of that column.
        seeds: Seeds of each setting, none of them a seed of the table.
        on: Part of the data whose mean accuracy over the seeds decides.
    """

    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    rows: dict[Line, dict[str, Annotated[list[Any], Field(min_length=1)]] | None] = {}
    at: dict[str, Any] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    on: Literal["validation", "test"] = "validation"


class SweepSpec(Section):
    """A table: rows × columns × seeds. The defaults describe one row, no column and the configuration's own seed.

    Attributes:
        name: Folder of the runs below ``--out``; null: the configuration's file name, with ``-`` for ``_``.
        title: Heading of the table; null: the name.
        notes: Text below the table.
        tuning: How the settings of rows are chosen before the table is trained; null trains rows as they stand.
        tuning_cells: Number of settings that were compared for each row before, which the caption states.
        rows: Label of each row to what it sets: dotted keys, or a mapping that replaces the whole value at its key.
        columns: Dotted key of each column to its values; several keys make the product of their values.
        seeds: Seeds of each cell; null: the configuration's ``seed``.
        cells: Rules for some cells, applied after row and column: ``{when: {...}, set: {...}}``.
        baselines: Row to the row that its differences are taken against, seed by seed.
    """

    name: Annotated[str, AfterValidator(_folder_name)] | None = None
    title: Line | None = None
    notes: Text | None = None
    tuning: TuningSpec | None = None
    tuning_cells: Positive | None = None
    rows: Annotated[dict[Line, dict[str, Any] | None], Field(min_length=1)] | None = None
    columns: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    cells: list[CellRule] = []
    baselines: dict[str, str] = {}
