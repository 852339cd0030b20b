"""The classes that a run's network gives to the images it was evaluated on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.rundir import names
from experiments.rundir.reading import MOST_BYTES, Unreadable, read_regular
from experiments.rundir.result import FILES, is_sealed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def read_predictions(path: Path, result: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return predicted classes and labels, (2, images), of a finished run.

    Args:
        path: The run's folder.
        result: Its result, whose checksum the file must have, and whose accuracy its content.

    Raises:
        FileNotFoundError: if the run kept none.
        Unreadable: if the file is not the one that the run left.
    """
    import numpy as np

    content = read_regular(path / names.PREDICTIONS)
    if not isinstance(sealed := result.get(FILES), Mapping) or names.PREDICTIONS not in sealed:
        raise Unreadable("has no checksum in the result, so it may be another run's")
    if not is_sealed(result, names.PREDICTIONS, content):
        raise Unreadable("was changed after the run had ended")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
                raise Unreadable(f"holds more than {MOST_BYTES:,} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            both = np.stack([arrays["predicted"], arrays["labels"]]).astype(np.int64)
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise Unreadable(f"does not hold predicted classes and labels ({error})") from error
    if both.ndim != 2 or (both[0] == both[1]).sum() != round(result["accuracy"] * both.shape[1]):
        raise Unreadable("does not have the accuracy of the result")
    return both
