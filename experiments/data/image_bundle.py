"""A folder of images for training and evaluation: seekable, and read ahead by worker processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from experiments.errors import UserError
from experiments.sockets import short_temporary_folder

from .bundle import check_batch, split
from .folder import ImageFolder
from .image_reader import Reader, Request
from .sampler import SeekableSampler
from .source import DataSettings, PartName, Placement

EVALUATION_BATCH = 256


class _Plan(Sampler[Request]):
    """A sampler whose requests can be replaced before each pass, since persistent workers serve many passes."""

    def __init__(self) -> None:
        self.requests: Sequence[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)


class ImageBundle:
    """The `Data` of a folder of images.

    One set of worker processes serves all passes, so only one pass runs at a time: starting a pass ends the previous
    one.

    Args:
        folder: The images.
        spec: The section ``data``.
        placement: Seed, device, memory layout and rank.
        size: Height and width of an image in pixels.
        mean: Mean of each channel on the scale 0 to 1.
        std: Standard deviation of each channel.

    Raises:
        UserError: if the split is impossible or the batch is larger than the training part.
    """

    in_channels = 3

    def __init__(
        self,
        folder: ImageFolder,
        spec: DataSettings,
        placement: Placement,
        *,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        self.folder = folder
        self.image_size = size
        self.num_classes = len(folder.classes)
        train, held = split(folder.train.labels, self.num_classes, spec.validation, spec.train_limit)
        check_batch(spec.batch_size, len(train))
        self.sampler = SeekableSampler(len(train), spec.batch_size, placement.seed, placement.shard, spec.drop_last)
        self._parts: dict[PartName, NDArray[np.int64]] = {
            "train": train,
            "validation": held,
            "test": np.arange(len(folder.test)),
        }
        self._placement = placement
        self._mean, self._std = (torch.tensor(v, device=placement.device).view(1, -1, 1, 1) for v in (mean, std))
        self._plan = _Plan()
        self._loader: DataLoader[Any] | None = DataLoader(
            Reader(folder, size, placement.seed),
            batch_size=None,  # a request is a batch
            sampler=self._plan,
            num_workers=spec.workers,
            persistent_workers=spec.workers > 0,
            pin_memory=placement.device.type == "cuda",
            collate_fn=_as_it_is,
            worker_init_fn=_keep_reading,
            # each pass draws a number: from the global generator, it would make a resumed run differ
            generator=torch.Generator(),
        )
        self._reading: Iterator[Any] = iter(())
        self._passes = 0

    @property
    def content_hash(self) -> str:
        """Hash of all names and some sizes, see `ImageFolder.content_hash`."""
        return self.folder.content_hash

    @property
    def steps_per_epoch(self) -> int:
        """Number of training batches per epoch."""
        return self.sampler.steps_per_epoch

    @property
    def last_batch(self) -> int:
        """Images of the last training batch of an epoch, over all ranks."""
        return self.sampler.last_batch

    def count(self, part: PartName) -> int:
        """Return the number of images of a part, over all ranks."""
        return len(self._parts[part])

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over this rank's part of the training batches of an epoch, from batch `start` on."""
        train = self._parts["train"]
        return self._read([Request("train", train[i.numpy()], epoch) for i in self.sampler.batches(epoch, start)])

    def evaluate_batches(self, part: Literal["validation", "test"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate once over this rank's share of a part, in file order, `EVALUATION_BATCH` images at a time."""
        held = self._parts[part]
        share = self.sampler.shard.of(len(held))
        where: Literal["train", "test"] = "test" if part == "test" else "train"
        edges = [(edge, min(edge + EVALUATION_BATCH, share.stop)) for edge in share[::EVALUATION_BATCH]]
        return self._read([Request(where, held[start:end], None) for start, end in edges])

    def close(self) -> None:
        """End the worker processes."""
        self._passes += 1
        self._loader, self._reading = None, iter(())

    def _read(self, requests: Sequence[Request]) -> Iterator[tuple[Tensor, Tensor]]:
        if self._loader is None:
            raise RuntimeError("the data is closed")
        self._passes += 1
        own = self._passes
        self._plan.requests = requests
        with _signals_held(), short_temporary_folder():
            self._reading = iter(self._loader)
        for _ in requests:
            if own != self._passes:
                raise RuntimeError("another pass over the images has begun, which ended this one")
            batch = next(self._reading)
            if isinstance(batch, UserError):
                raise batch
            yield self._placed(*batch)

    def _placed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise a batch on the device: the transfer of pixels as bytes takes a quarter of the traffic of floats."""
        device = self._placement.device
        layout = torch.channels_last if self._placement.channels_last else torch.contiguous_format
        images = images.to(device, non_blocking=True).to(memory_format=layout)
        scaled = images.float().div_(255).sub_(self._mean).div_(self._std)
        return scaled, labels.to(device, non_blocking=True)


def _as_it_is(batch: Any) -> Any:
    return batch


# Signals that a terminal and Slurm send to all processes of a run.
_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Block signals while workers start, so that none reaches a worker before `_keep_reading` has run.

    This process receives them a moment later.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_SIGNALS, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep_reading(worker: int) -> None:
    """Make a worker ignore signals, so that the training process decides when it ends.

    On a signal, the training process finishes its step and saves a checkpoint, for which it may still wait for this
    worker. SIGTERM ends a worker only if it comes from the training process itself.
    """
    del worker
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    if hasattr(signal, "sigwaitinfo"):
        threading.Thread(target=_end_for_parent, daemon=True).start()  # waits for SIGTERM, which stays blocked
    else:  # macOS
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _end_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
