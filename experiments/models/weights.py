"""Initial weights from a file, for the key `model.weights`. Importing this module loads no torch."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from experiments.errors import UserError, nearest
from experiments.rundir import names
from experiments.rundir.reading import Unreadable, kind_of, read_object
from experiments.rundir.result import FILES, digest_of

if TYPE_CHECKING:
    from torch import Tensor, nn

KEY = "model.weights"
CONTAINERS = ("model", "state_dict", "model_state_dict", "net", "weights")
"""Keys under which training code keeps a state_dict, besides its own bookkeeping."""


def content_hash(path: str) -> str:
    """Return the hash of a file's content, which is part of a run's identity in place of the file's path.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise UserError(f"{path} is {kind_of(found.st_mode)}, not a file", where=KEY)
        return _hash(path, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise _unreadable(path, error) from None


@cache
def _hash(path: str, size: int, changed: int) -> str:
    """Hash a file; cached while its size and time stay the same, since a sweep asks once per cell."""
    del size, changed
    with Path(path).open("rb") as file:
        return _short(hashlib.file_digest(file, "sha256"))


def _short(digest: Any) -> str:
    return digest.hexdigest()[:16]


def _unreadable(path: str, error: OSError) -> UserError:
    return UserError(f"{path}: {error.strerror or error}; a run's weights.pt, a file with a state_dict, or null", KEY)


def load(model: nn.Module, path: str) -> str:
    """Load the weights of a file into a network; names and shapes must match exactly.

    The file is read once: what is hashed is what is loaded.

    Args:
        model: The plain network; its parameters and buffers are overwritten.
        path: A `weights.pt` of this suite, or a file that ``torch.save(model.state_dict(), path)`` wrote.

    Returns:
        The hash of its content, see `content_hash`.

    Raises:
        UserError: if the file is neither, or does not match; the error names the first tensor that differs.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    model.load_state_dict(check(model.state_dict(), path, content))
    return _short(hashlib.sha256(content))


def check(wanted: Mapping[str, Tensor], path: str, content: bytes | None = None) -> dict[str, Tensor]:
    """Read the weights of a file and check that they match a network.

    Args:
        wanted: The network's state_dict; only names and shapes are compared, so it may be on the meta device.
        path: The file.
        content: Its content, if it has been read.

    Returns:
        The weights of the file.

    Raises:
        UserError: if the file holds no weights, or does not match; the error names the first tensor that differs.
    """
    found = _read(path, path if content is None else io.BytesIO(content))
    for name, tensor in wanted.items():
        if name not in found:
            raise UserError(f"{path} does not fit the network: it lacks {name}{nearest(name, list(found))}", where=KEY)
        if found[name].shape != tensor.shape:
            here, there = (" x ".join(map(str, t.shape)) or "a scalar" for t in (tensor, found[name]))
            raise UserError(f"{path} does not fit the network: {name} is {there} there and {here} here", where=KEY)
    for name in found:
        if name not in wanted:
            raise UserError(f"{path} does not fit the network, which has no {name}{nearest(name, list(wanted))}", KEY)
    return found


def _read(path: str, file: str | IO[bytes]) -> dict[str, Tensor]:
    import torch

    from experiments.rundir.checkpoint import FORMAT
    from sparsity.targets import plain_name

    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the system, zipfile, pickle and torch raise for a file without tensors
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as weights ({reason})", where=KEY) from None
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        content = content.get("state")
    for name in () if _is_state(content) else CONTAINERS:
        if isinstance(content, Mapping) and _is_state(content.get(name)):
            content = content[name]
            break
    if not _is_state(content):
        held = f"; its keys: {', '.join(map(str, list(content)[:6]))}" if isinstance(content, Mapping) else ""
        raise UserError(
            f"{path} holds no state_dict, a mapping of names to tensors, neither itself nor under "
            f"{', '.join(CONTAINERS)}{held}",
            where=KEY,
        )
    _check_seal(Path(path))
    found = {name: plain_name(name) for name in content}
    if all(name.startswith("module.") for name in found.values()):  # saved under DistributedDataParallel
        found = {name: plain.removeprefix("module.") for name, plain in found.items()}
    return {found[name]: tensor for name, tensor in content.items()}


def _check_seal(path: Path) -> None:
    """Refuse the weights of a run whose result states another checksum of them."""
    if path.name != names.WEIGHTS:
        return
    try:
        stated = read_object(path.with_name(names.RESULT)).get(FILES)
    except (FileNotFoundError, Unreadable):
        return
    known = stated.get(names.WEIGHTS) if isinstance(stated, Mapping) else None
    if known is not None and known != digest_of(path):
        raise UserError(f"{path} is damaged or was changed: the result beside it states another checksum", where=KEY)


def _is_state(content: Any) -> bool:
    import torch

    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())
