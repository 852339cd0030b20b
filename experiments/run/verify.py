"""A finished run looked at again: are its files those of its result, and do its weights give its accuracy?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import data as datasets
from experiments.config.resolve import from_mapping
from experiments.config.yaml_text import read_mapping
from experiments.data.sampler import WHOLE
from experiments.errors import SuiteError
from experiments.models import weights
from experiments.ranks.distributed import ALONE
from experiments.rundir import names
from experiments.rundir.result import FILES, digest_of

from .build import build_network, pick_device
from .metrics import evaluate
from .numerics import autocast, same_arithmetic, switches

ROUNDING = 5e-4
"""Share of the images that another device may classify otherwise."""


def fault(folder: Path, result: Mapping[str, Any]) -> str | None:
    """Evaluate the weights of a finished run again on its own evaluated part.

    Args:
        folder: The run directory, with its weights.
        result: Its result, already checked by itself.

    Returns:
        What differs, or None if files and accuracy are those of the result.
    """
    sealed = result.get(FILES)
    for name, digest in sealed.items() if isinstance(sealed, Mapping) else ():
        if not (folder / str(name)).is_file():
            return f"{name} is not there"
        if digest_of(folder / str(name)) != digest:
            return f"{name} is not the file that the run left"
    if not (folder / names.WEIGHTS).is_file():
        return f"{names.WEIGHTS} is not there"
    try:
        correct, images = _evaluated(folder)
    except SuiteError as error:
        return f"cannot be evaluated: {error}"
    if result.get("evaluated") not in (None, images):
        return f"was evaluated on {result['evaluated']:,} images, and its part has {images:,} now"
    stated = round(result["accuracy"] * images)
    if abs(correct - stated) > ROUNDING * images:
        return f"accuracy {result['accuracy']:.2%} is stated, and its weights have {correct / images:.2%}"
    return None


def _evaluated(folder: Path) -> tuple[int, int]:
    """Return the number of images that the weights classify correctly, and the number of all."""
    spec = from_mapping(read_mapping(folder / names.SPEC))
    device = pick_device("auto")
    data = datasets.build(spec.data, spec.seed, device, spec.runtime.channels_last, WHOLE)
    try:
        network = build_network(spec.model, data)
        weights.load(network, str(folder / names.WEIGHTS))
        batches = data.evaluate_batches(spec.data.evaluate_on)
        with same_arithmetic(1), switches(spec.runtime), autocast(spec.runtime, device):
            _, accuracy, images = evaluate(network.to(device), batches, ALONE)
    finally:
        data.close()
    return round(accuracy * images), images
