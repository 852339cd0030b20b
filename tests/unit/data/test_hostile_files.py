"""Files of data that somebody wrote to do harm, or that a disk damaged: words, and nothing that they name is done."""

from __future__ import annotations

import gzip
import logging
import os
import pickle
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data import folder as image_folder
from experiments.data.folder import scan
from experiments.data.idx import IdxError, read_idx
from experiments.data.image_reader import decode
from experiments.data.plain_pickle import PickleError, read_plain_pickle
from experiments.errors import UserError


def text(value: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(value)) + value


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
DTYPE = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"


def entry(value: bytes) -> bytes:
    """A pickle of one dictionary with one value."""
    return b"\x80\x02}" + text(b"data") + value + b"s."


HOSTILE = {
    "an array with the state of an object": entry(ARRAY + b"(K\x01K\x02\x85" + DTYPE + b"\x88" + text(b"abc") + b"tb"),
    "a type with a state that is too short": entry(DTYPE + b"(K\x03" + text(b"|") + b"NNNtb"),
    "an array of an array": entry(ARRAY + b"(K\x01K\x02\x85" + ARRAY + b"\x89" + text(b"ab") + b"tb"),
    "a negative size": entry(ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + DTYPE + b"\x89" + text(b"") + b"tb"),
    "a size beyond the bytes": entry(ARRAY + b"(K\x01J\xff\xff\xff\x7f\x85" + DTYPE + b"\x89" + text(b"ab") + b"tb"),
    "the state of a function": entry(b"c_codecs\nencode\n}" + text(b"x") + b"K\x01sb"),
    "slots of a function": entry(b"c_codecs\nencode\nN}" + b"X\x0c\x00\x00\x00__defaults__)s\x86b"),
    "numpy.ndarray called": entry(b"cnumpy\nndarray\nK\x05\x85R"),
    "os.system": entry(b"cos\nsystem\n" + text(b"true") + b"\x85R"),
    "an object made by NEWOBJ": entry(b"cnumpy\nndarray\n)\x81"),
    "an instance by INST": entry(b"(inumpy\nndarray\n"),
    "a set, whose members are hashed": entry(b"\x8f"),
    "a key that is a tuple": b"\x80\x02}K\x01\x85K\x01s.",
    "a key nested without bound": b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.",
    "a persistent name": entry(b"Pname\n"),
    "an extension": entry(b"\x82\x01"),
    "appended to a dictionary": entry(b"}(K\x01e"),
    "a text encoded again and again": entry(b"(X" + struct.pack("<i", 10**6) + b"a" * 10**6 + b"q\x00")[:-2]
    + b"".join([b"c_codecs\nencode\nh\x00" + text(b"latin1") + b"\x86R"] * 1100)
    + b"ls.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_gets_no_object_to_act_on(tmp_path: Path, name: str) -> None:
    path = tmp_path / "batch"
    path.write_bytes(HOSTILE[name])
    if name == "a type with a state that is too short":
        assert set(read_plain_pickle(path)) == {b"data"}  # a stand-in, whose state is nothing
        return
    with pytest.raises(PickleError):
        read_plain_pickle(path)


def test_a_pickle_may_count_in_its_memory_as_it_likes(tmp_path: Path) -> None:
    """Python's reader in C would reserve 32 GiB for entry 2**31."""
    path = tmp_path / "batch"
    path.write_bytes(entry(b"K\x01r\xff\xff\xff\x7f"))
    assert read_plain_pickle(path) == {b"data": 1}


def test_damaged_pickles_are_read_or_refused(tmp_path: Path) -> None:
    whole = pickle.dumps({b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [1, 2, 3]}, protocol=2)
    draw, path = random.Random(0), tmp_path / "batch"
    refused = 0
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(bytes(content[: draw.choice([len(content), draw.randrange(len(content))])]))
        try:
            data = read_plain_pickle(path).get(b"data")
        except PickleError:
            refused += 1
            continue
        assert not isinstance(data, np.ndarray) or data.dtype == np.uint8
    assert refused > 1000


def test_an_archive_unpacks_to_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.data.idx.MOST_BYTES", 1000)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"\0" * 10**7))
    with pytest.raises(IdxError, match="has more than 1,000 bytes"):
        read_idx(path)


# ---- images ----------------------------------------------------------------------------------------------------------


def images(root: Path, number: int = 2) -> Path:
    for part in ("train", "val"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for index in range(number):
                Image.new("RGB", (8, 8), (index, 0, 0)).save(root / part / name / f"{index}.png")
    return root


@pytest.mark.parametrize("ending", image_folder.EXTENSIONS)
def test_every_ending_that_is_listed_is_decoded(tmp_path: Path, ending: str) -> None:
    root = images(tmp_path)
    Image.new("RGB", (8, 8)).save(root / "train/a" / f"more{ending.upper()}")
    found = scan(str(root)).train
    assert len(found) == 5
    (more,) = [found.path(index) for index in range(5) if "more" in found.path(index)]
    assert decode(more).size == (8, 8)


def test_other_files_are_counted_by_their_endings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = images(tmp_path)
    for name in ("x.gif", "y.GIF", "z.txt", "README", ".hidden"):
        (root / "train/b" / name).touch()
    os.mkfifo(root / "train/a/pipe.png")  # opening it would wait for ever
    (root / "train/a/folder.png").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(scan(str(root)).train) == 4
    (record,) = caplog.records
    words = "4 files are no images by their names (2 .gif, 1 .txt, 1 without an ending) and are left out"
    assert words in record.getMessage()
    assert str(root / "train") in record.getMessage()


def test_an_image_of_too_many_pixels_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (40, 40)).save(path)
    decode(str(path))
    for most in (1000, 500):  # Pillow warns beyond the limit and raises beyond twice as much
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(UserError, match=r"huge\.png: this image cannot be decoded .*1600 pixels"):
            decode(str(path))


@pytest.mark.parametrize("ending", image_folder.EXTENSIONS)
def test_damaged_images_are_named_or_read(tmp_path: Path, ending: str) -> None:
    path, draw = tmp_path / f"image{ending}", random.Random(0)
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    whole, refused, read = path.read_bytes(), 0, 0
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(min(len(content), 200))] = draw.randrange(256)
        path.write_bytes(bytes(content[: draw.choice([len(content), draw.randrange(len(content))])]))
        try:
            assert decode(str(path)).mode == "RGB"
        except UserError as error:
            refused += error.where == str(path)
        else:
            read += 1
    assert (refused + read, refused > 20) == (150, True)
