"""A folder of images: layout, messages, and that a batch depends on seed, epoch and position alone."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from experiments import data
from experiments.data import image_reader
from experiments.data.bundle import split
from experiments.data.folder import scan
from experiments.data.image_bundle import ImageBundle
from experiments.data.image_reader import decode
from experiments.data.imagenet import MEAN, STD
from experiments.data.sampler import SeekableSampler, Shard
from experiments.errors import UserError
from experiments.seeding import derived_seed

SCRIPT = Path(__file__).parents[3] / "scripts" / "make_photo_folder.py"
CLASSES = ["astronaut", "chelsea", "coffee", "hubble_deep_field", "retina", "rocket"]


@dataclass(frozen=True)
class Spec:
    root: str | None
    name: str = "imagenet"
    image_size: int | None = 32
    batch_size: int = 12
    drop_last: bool = True
    validation: int = 12
    train_limit: int | None = None
    evaluate_on: str = "test"
    workers: int = 0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of ten training and three validation crops of photographs."""
    folder = tmp_path_factory.mktemp("photos")
    subprocess.run([sys.executable, str(SCRIPT), str(folder), "--train", "10", "--val", "3"], check=True)
    return folder


@pytest.fixture
def copy(photos: Path, tmp_path: Path) -> Path:
    """Files that a test may spoil."""
    return shutil.copytree(photos, tmp_path / "copy")


@pytest.fixture
def build() -> Iterator[Callable[..., ImageBundle]]:
    made = []

    def make(spec: Spec, seed: int = 0, shard: Shard | None = None, channels_last: bool = False) -> ImageBundle:
        bundle = data.build(spec, seed, "cpu", channels_last, shard)
        assert isinstance(bundle, ImageBundle)
        made.append(bundle)
        return bundle

    yield make
    for bundle in made:
        bundle.close()


Build = Callable[..., ImageBundle]


def equal(one: Iterable[tuple[Tensor, Tensor]], other: Iterable[tuple[Tensor, Tensor]]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the images that are asked for in this process; they are not really read."""
    read: list[str] = []

    def nothing(path: str) -> Image.Image:
        read.append(path)
        return Image.new("RGB", (40, 40))

    monkeypatch.setattr(image_reader, "decode", nothing)
    return read


def paint(path: Path, size: tuple[int, int] = (8, 8), colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, colour, colour)).save(path)


# --- the layout


def test_parts_and_labels(photos: Path, build: Build):
    bundle = build(Spec(str(photos)))
    assert (bundle.num_classes, bundle.in_channels, bundle.image_size) == (6, 3, 32)
    assert [bundle.count("train"), bundle.count("validation"), bundle.count("test")] == [48, 12, 18]
    assert bundle.steps_per_epoch == 4
    assert bundle.folder.classes == tuple(CLASSES)
    labels = torch.cat([labels for _, labels in bundle.evaluate_batches("test")])
    assert labels.tolist() == [label for label in range(6) for _ in range(3)]
    assert bundle.folder.test.path(4) == str(photos / "val" / "chelsea" / "0001.jpg")
    images, labels = next(bundle.batches(0))
    assert images.shape == (12, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64


def test_the_size_is_224_unless_said(photos: Path, build: Build):
    bundle = build(Spec(str(photos), image_size=None))
    assert bundle.image_size == 224
    assert next(bundle.batches(0))[0].shape == (12, 3, 224, 224)


def test_validation_is_the_last_of_each_class_and_not_augmented(photos: Path, build: Build):
    held = build(Spec(str(photos)))
    images = torch.cat([images for images, _ in held.evaluate_batches("validation")])
    crop = v2.Compose(
        [v2.Resize(37), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    for position, name in ((0, "astronaut/0008.jpg"), (3, "chelsea/0009.jpg")):
        torch.testing.assert_close(images[position], crop(decode(str(photos / "train" / name))))
    assert equal(held.evaluate_batches("validation"), held.evaluate_batches("validation"))


def test_pixels_are_normalised(tmp_path: Path, build: Build):
    """A picture whose shorter side is 32 · 256 / 224 already: what is left of it is its centre."""
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / part / "a" / "x.png")
    images, _ = next(build(Spec(str(tmp_path), batch_size=1, validation=0)).evaluate_batches("test"))
    expected = (pixels[2:34, 10:42] / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(images[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPEG", ".png", ".PNG"])
def test_names_of_images(tmp_path: Path, suffix: str, build: Build):
    for part in ("train", "val"):
        paint(tmp_path / part / "a" / "x.jpg", colour=9)
        (tmp_path / part / "a" / "x.jpg").rename(tmp_path / part / "a" / f"x{suffix}")  # a wrong suffix is read too
        for other in ("._x.jpg", "notes.txt", "x.jpg.md5"):
            (tmp_path / part / "a" / other).write_text("no image")
        (tmp_path / part / ".cache").mkdir()
    bundle = build(Spec(str(tmp_path), batch_size=1, validation=0))
    assert (bundle.count("train"), bundle.count("test"), bundle.num_classes) == (1, 1, 1)
    assert len(list(bundle.batches(0))) == 1


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),  # 22 of ImageNet's
        ("L", 77, (77, 77, 77)),
        ("RGB", (10, 200, 30), (10, 200, 30)),
    ],
)
def test_colour_spaces_of_jpegs(tmp_path: Path, mode: str, colour, expected: tuple[int, ...]):
    Image.new(mode, (16, 16), colour).save(tmp_path / "x.jpg", quality=95)
    image = np.asarray(decode(str(tmp_path / "x.jpg")), dtype=float)
    assert image.shape == (16, 16, 3)
    assert np.abs(image.mean(axis=(0, 1)) - expected).max() < 4


@pytest.mark.parametrize("mode", ["RGBA", "P", "L"])
def test_a_png_named_jpeg(tmp_path: Path, mode: str):
    """ImageNet has one."""
    image = Image.new("RGB", (6, 5), (128, 128, 128))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "x.JPEG", format="png")
    assert np.array_equal(np.asarray(decode(str(tmp_path / "x.JPEG"))), np.full((5, 6, 3), 128))


def test_sixteen_bits_a_channel_are_refused(tmp_path: Path):
    Image.fromarray(np.full((5, 6), 0x8080, dtype=np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match="cannot be decoded .more than 8 bits a channel."):
        decode(str(tmp_path / "x.png"))


# --- the hash


def test_the_hash_sees_names_and_first_sizes(copy: Path):
    def hashed() -> str:
        data.content_hash.cache_clear()
        scan.cache_clear()
        return data.content_hash("imagenet", str(copy))

    before = hashed()
    retina = copy / "train" / "retina"
    seen = {before}
    for change, undo in (
        (
            lambda: (retina / "0003.jpg").rename(retina / "3.jpg"),
            lambda: (retina / "3.jpg").rename(retina / "0003.jpg"),
        ),
        (
            lambda: (retina / "0003.jpg").rename(copy / "train" / "rocket" / "0010.jpg"),
            lambda: (copy / "train" / "rocket" / "0010.jpg").rename(retina / "0003.jpg"),
        ),
        (lambda: paint(retina / "new.jpg"), (retina / "new.jpg").unlink),
        (lambda: paint(copy / "val" / "retina" / "new.jpg"), (copy / "val" / "retina" / "new.jpg").unlink),
    ):
        change()
        seen.add(hashed())
        undo()
        assert hashed() == before
    paint(retina / "0001.jpg", colour=5)  # neither the first of its class nor another name
    assert hashed() == before
    paint(retina / "0000.jpg", colour=5)
    seen.add(hashed())
    assert len(seen) == 6


def test_the_hash_does_not_depend_on_the_place(photos: Path, copy: Path, build: Build):
    hashed = data.content_hash("imagenet", str(photos))
    assert hashed == data.content_hash("imagenet", str(copy)) == build(Spec(str(photos))).content_hash
    assert len(hashed) == 16


def test_the_hash_needs_no_torch(photos: Path):
    code = (
        "import sys; from experiments import data;"
        f"print(data.content_hash('imagenet', {str(photos)!r}), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [data.content_hash("imagenet", str(photos)), "False"]


# --- what can be wrong


def loose_validation(root: Path) -> None:
    shutil.rmtree(root / "val")
    for number in range(3):
        paint(root / "val" / f"ILSVRC2012_val_{number:08}.JPEG")


WRONG: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no folder": (shutil.rmtree, ["copy is not a folder"]),
    "no training part": (lambda root: shutil.rmtree(root / "train"), ["no folder", "train/CLASS/*.jpg"]),
    "no validation part": (lambda root: shutil.rmtree(root / "val"), ["no folder", "val/CLASS/*.jpg"]),
    "no classes": (
        lambda root: [shutil.rmtree(folder) for folder in (root / "train").iterdir()],
        ["copy/train holds no folder of a class;"],
    ),
    "unsorted": (loose_validation, ["copy/val holds no folder of a class, but 3 images, which have to be sorted"]),
    "empty classes": (
        lambda root: [path.unlink() for name in CLASSES[1:] for path in (root / "val" / name).iterdir()],
        [
            "5 of 6 classes in",
            "copy/val hold no image (.jpg, .jpeg, .png, .webp, .bmp): chelsea, coffee, hubble_deep_field and 2 more",
        ],
    ),
    "other classes": (
        lambda root: (root / "val" / "coffee").rename(root / "val" / "tea"),
        ["must hold the same classes; only in train: coffee; only in val: tea"],
    ),
    "fewer classes": (
        lambda root: shutil.rmtree(root / "val" / "coffee"),
        ["must hold the same classes; only in train: coffee"],
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_folders_are_refused(copy: Path, build: Build, wrong: str):
    spoil, words = WRONG[wrong]
    spoil(copy)
    for ask in (lambda: data.content_hash("imagenet", str(copy)), lambda: build(Spec(str(copy)))):
        with pytest.raises(UserError) as error:
            ask()
        assert error.value.where == "data.root"
        for word in words:
            assert word in str(error.value)


def test_no_root_is_refused():
    with pytest.raises(UserError, match=r"^data.root: is null, so there are no images to read; give data.root=DIR"):
        data.content_hash("imagenet", None)


def test_a_folder_that_may_not_be_read(copy: Path, monkeypatch: pytest.MonkeyPatch):
    scandir = os.scandir

    def refuse(path: Path):
        if path.name == "retina":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="^data.root: .*train/retina cannot be read: Permission denied$"):
        data.content_hash("imagenet", str(copy))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"half", None])
def test_an_image_that_cannot_be_decoded_is_named(copy: Path, build: Build, workers: int, content: bytes | None):
    bundle = build(Spec(str(copy), batch_size=48, workers=workers))
    path = copy / "train" / "coffee" / "0002.jpg"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:400] if content == b"half" else content)
    with pytest.raises(UserError, match="this image cannot be decoded") as error:
        next(bundle.batches(0))
    assert error.value.where == str(path)
    assert "\n" not in str(error.value)
    assert list(bundle.evaluate_batches("test"))  # and reading goes on


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"validation": 10}, ["data.validation", "10 is not a multiple of the number of classes, 6"]),
        ({"validation": 60}, ["data.validation", "nothing to train on"]),
        ({"train_limit": 60}, ["data.train_limit", "60 is out of range: 6 to 48"]),
        ({"batch_size": 49}, ["data.batch_size", "1 to 48"]),
        ({"validation": 0, "evaluate_on": "validation"}, ["data.evaluate_on"]),
    ],
)
def test_impossible_splits_are_refused(photos: Path, build: Build, changes: dict[str, object], words: list[str]):
    with pytest.raises(UserError) as error:
        build(replace(Spec(str(photos)), **changes))  # pyright: ignore[reportArgumentType]
    for word in words:
        assert word in str(error.value)


# --- augmentation and order


def test_augmentation_is_torchvisions_under_the_seed_of_the_image(photos: Path, build: Build):
    bundle = build(Spec(str(photos)), seed=3)
    train, _ = split(bundle.folder.train.labels, 6, 12, None)
    drawn = train[SeekableSampler(48, 12, 3).permutation(2)[:12].numpy()]
    augment = v2.Compose([v2.RandomResizedCrop(32), v2.RandomHorizontalFlip()])
    images, labels = next(bundle.batches(2))
    for position, index in enumerate(drawn.tolist()):
        torch.manual_seed(derived_seed(3, "augment", 2, index))
        pixels = v2.functional.to_image(augment(decode(bundle.folder.train.path(index)))).float() / 255
        expected = v2.functional.normalize(pixels, list(MEAN), list(STD))
        torch.testing.assert_close(images[position], expected)
        assert labels[position] == index // 10


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_bit(photos: Path, build: Build, workers: int):
    alone, helped = build(Spec(str(photos))), build(Spec(str(photos), workers=workers))
    for epoch in range(2):  # the second with the workers of the first
        assert equal(alone.batches(epoch), helped.batches(epoch))
    assert equal(alone.evaluate_batches("validation"), helped.evaluate_batches("validation"))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_each_batch(photos: Path, build: Build, ranks: int):
    whole = build(Spec(str(photos)))
    parts = [build(Spec(str(photos)), shard=Shard(rank, ranks)) for rank in range(ranks)]
    together = [
        (torch.cat([images for images, _ in shares]), torch.cat([labels for _, labels in shares]))
        for shares in zip(*(part.batches(1) for part in parts), strict=True)
    ]
    assert len(together) == 4
    assert equal(whole.batches(1), together)


def test_an_image_is_augmented_alike_in_any_batch_and_anew_each_epoch(photos: Path, build: Build):
    def by_image(batch_size: int, epoch: int, seed: int = 0) -> dict[int, Tensor]:
        bundle = build(Spec(str(photos), batch_size=batch_size), seed=seed)
        drawn = torch.cat(list(bundle.sampler.batches(epoch))).tolist()
        return dict(zip(drawn, torch.cat([images for images, _ in bundle.batches(epoch)]), strict=True))

    first, other, later, seeded = by_image(12, 0), by_image(48, 0), by_image(12, 1), by_image(12, 0, seed=1)
    assert all(torch.equal(first[index], other[index]) for index in first)
    assert not any(torch.equal(first[index], later[index]) for index in first)
    assert not any(torch.equal(first[index], seeded[index]) for index in first)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_within_an_epoch_equals_its_end(photos: Path, build: Build, workers: int):
    whole = list(build(Spec(str(photos))).batches(1))
    bundle = build(Spec(str(photos), workers=workers))
    for start in (3, 0, 4, 1):
        assert equal(bundle.batches(1, start), whole[start:])
    with pytest.raises(ValueError, match="start 5"):
        bundle.batches(1, 5)


def test_nothing_before_the_position_is_read(photos: Path, build: Build, monkeypatch: pytest.MonkeyPatch):
    read = count_reads(monkeypatch)
    bundle = build(Spec(str(photos)))
    list(bundle.batches(0))
    whole, read[:] = list(read), []
    list(bundle.batches(0, 2))
    assert read == whole[24:]
    assert len(set(whole)) == 48


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_states_are_left_alone(photos: Path, build: Build, workers: int):
    def states() -> list[object]:
        return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]

    before = states()
    bundle = build(Spec(str(photos), workers=workers))
    for epoch in range(2):
        next(bundle.batches(epoch))
        list(bundle.batches(epoch, 1))
    list(bundle.evaluate_batches("test"))
    assert states() == before


def test_evaluation_sees_every_image_once_over_three_ranks(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
):
    for label, images in (("a", 1201), ("b", 799)):
        for number in range(2):
            paint(tmp_path / "train" / label / f"{number}.jpg")
        (tmp_path / "val" / label).mkdir(parents=True)
        for number in range(images):
            os.link(tmp_path / "train" / label / "0.jpg", tmp_path / "val" / label / f"{number:05}.jpg")
    read = count_reads(monkeypatch)
    spec = Spec(str(tmp_path), image_size=8, batch_size=3, validation=0)
    shares = [list(build(spec, shard=Shard(rank, 3)).evaluate_batches("test")) for rank in range(3)]
    assert [sum(len(labels) for _, labels in share) for share in shares] == [666, 667, 667]
    assert sorted(read) == sorted(str(path) for path in (tmp_path / "val").rglob("*.jpg"))
    assert sum(int(labels.sum()) for share in shares for _, labels in share) == 799


def test_channels_last_keeps_values_and_layout(photos: Path, build: Build):
    plain, last = build(Spec(str(photos))), build(Spec(str(photos)), channels_last=True)
    (images, _), (moved, _) = next(plain.batches(0)), next(last.batches(0))
    assert torch.equal(images, moved)
    assert images.is_contiguous()
    assert moved.is_contiguous(memory_format=torch.channels_last)


# --- worker processes


def workers() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid]


def test_one_pass_at_a_time(photos: Path, build: Build):
    bundle = build(Spec(str(photos), workers=1))
    first = bundle.batches(0)
    next(first)
    second = bundle.batches(1)
    next(second)
    with pytest.raises(RuntimeError, match="another pass"):
        next(first)
    assert len(list(second)) == 3


def test_evaluating_after_the_last_batch_does_not_disturb(photos: Path, build: Build):
    """As training does: within its loop, the loop not having ended yet."""
    bundle = build(Spec(str(photos), workers=2))
    seen = 0
    for _ in bundle.batches(0):
        seen += 1
        if seen == bundle.steps_per_epoch:
            assert sum(len(labels) for _, labels in bundle.evaluate_batches("validation")) == 12
    assert seen == 4


def test_workers_live_on_from_epoch_to_epoch_and_end_at_close(photos: Path, build: Build):
    bundle = build(Spec(str(photos), workers=2))
    list(bundle.batches(0))
    first = workers()
    list(bundle.batches(1))
    list(bundle.evaluate_batches("test"))
    assert len(first) == 2
    assert workers() == first
    left = bundle.batches(0)
    next(left)
    bundle.close()
    assert workers() == []
    with pytest.raises(RuntimeError):
        next(left)
    with pytest.raises(RuntimeError, match="closed"):
        next(bundle.batches(0))


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="only Linux tells who sent a signal")
def test_signals_to_all_processes_do_not_end_workers(photos: Path, build: Build):
    """Ctrl-C and Slurm's signals reach them too, while training still needs what they read."""
    bundle = build(Spec(str(photos), workers=2))
    batches = bundle.batches(0)
    next(batches)
    for pid in workers():
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(pid, number)
        subprocess.run(["kill", "-TERM", str(pid)], check=True)
    time.sleep(0.2)
    assert len(list(batches)) == 3
    assert len(workers()) == 2
    for child in multiprocessing.active_children():  # as Python does where an end was not clean
        child.terminate()
        child.join(10)
    assert workers() == []
