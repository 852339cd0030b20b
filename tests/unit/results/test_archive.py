"""An archive: the same bytes from the same runs, the same table from it, and nothing that it may not hold."""

from __future__ import annotations

import os
import random
import shutil
import stat
import zipfile

import pytest
from fake_runs import write_sweep

import results
from experiments.errors import UserError
from results.page import figures
from results.page.report import write_report
from results.runs import archive
from results.runs.store import read
from results.table.formats import render

ROWS = {"RiGL": {"topology.name": "rigl"}, "RiGL + HAM": {"topology.name": "rigl", "optimizer.ham": {"alpha": 20.0}}}
VALUES = {"RiGL": [0.80, 0.82, 0.84], "RiGL + HAM": [0.81, 0.82, 0.86]}


@pytest.fixture
def folder(tmp_path):
    made = write_sweep(
        tmp_path / "mine", VALUES, ROWS, [{"topology.sparsity": 0.95}], (0, 1, 2), {"RiGL + HAM": "RiGL"}
    )
    for run in read(made).runs:
        (run.path / "weights.pt").write_bytes(b"large")
    return made


def archived(folder, name="a.ham.zip"):
    archive.write(read(folder), folder.parent / name)
    return folder.parent / name


@pytest.mark.parametrize("format", ["text", "csv", "json", "latex"])
def test_its_table_is_the_folders(folder, format):
    assert render(archived(folder), format) == render(folder, format)


def test_all_that_reads_a_folder_reads_it(folder):
    path = archived(folder)
    loaded, own = results.load(path), results.load(folder)
    assert loaded.drop(columns="path").equals(own.drop(columns="path"))
    assert write_report(path) == path.with_suffix(".html")
    shutil.rmtree(folder)
    assert render(path)  # it needs nothing else


def test_equal_runs_give_equal_bytes(folder):
    one = archived(folder).read_bytes()
    copy = folder.parent / "elsewhere" / "mine"
    shutil.copytree(folder, copy)
    for path in copy.rglob("*.json"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert archived(copy).read_bytes() == one


def test_it_holds_no_weights(folder):
    with zipfile.ZipFile(archived(folder)) as file:
        found = {name.rpartition("/")[2] for name in file.namelist()}
    assert found == {"sweep.json", "spec.yaml", "environment.json", "metrics.jsonl", "result.json"}


def test_a_single_runs_folder_can_be_archived(folder):
    run = read(folder).runs[0].path
    archive.write(read(run), folder.parent / "run.zip")
    assert results.load(folder.parent / "run.zip").accuracy.tolist() == results.load(run).accuracy.tolist()


def link(head):
    head.external_attr = (stat.S_IFLNK | 0o777) << 16


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("../evil/result.json", None, "which is no file of a run"),
        ("/etc/result.json", None, "which is no file of a run"),
        ("../result.json", None, "which is no file of a run"),
        ("a/b/result.json", None, "which is no file of a run"),
        ("a/weights.pt", None, "which is no file of a run"),
        ("a\\..\\b/result.json", None, "which is no file of a run"),
        ("a\x1b/result.json", None, "which is no file of a run"),
        ("a/", None, "which is no file of a run"),
        ("a/result.json", link, "a/result.json is no regular file"),
    ],
)
def test_what_it_may_not_hold_is_refused_before_anything_is_written(tmp_path, name, change, words):
    head = zipfile.ZipInfo(name)
    if change is not None:
        change(head)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr("sweep.json", "{}")
        file.writestr(head, "/etc/passwd")
    with pytest.raises(UserError, match=words):
        read(tmp_path / "bad.zip")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bad.zip"]


def test_sizes_are_bounded(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "big.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/result.json", bytes(2000))
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"a/result.json has 2,000 bytes, and at most 1,000 are read"):
        read(tmp_path / "big.zip")
    archive.unpacked.cache_clear()
    monkeypatch.setattr(archive, "MOST_TOTAL", 1000)
    with pytest.raises(UserError, match="more than 200,000 files or 1,000 bytes"):
        read(tmp_path / "big.zip")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", bytes(100)])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "no.zip").write_bytes(content)
    with pytest.raises(UserError, match="is no archive of `ham archive`"):
        read(tmp_path / "no.zip")


def test_a_damaged_member_is_refused(folder):
    path = archived(folder)
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="is no archive of `ham archive`"):
        read(path)


def test_no_damage_ends_in_anything_but_a_refusal(folder):
    """Two hundred archives with bytes changed, cut or repeated, each read or refused, none in another way."""
    whole, drawn = archived(folder).read_bytes(), random.Random(3)
    refused: list[str] = []
    for number in range(200):
        content = bytearray(whole)
        for _ in range(drawn.randint(1, 4)):
            content[drawn.randrange(len(content))] = drawn.randrange(256)
        content = content[: drawn.randrange(len(content))] if number % 4 == 0 else content
        path = folder.parent / f"{number}.zip"
        path.write_bytes(content)
        try:
            unpacked = archive.unpacked(path)
        except UserError as error:
            refused.append(str(error))
            continue
        assert {each.name for each in unpacked.rglob("*") if each.is_file()} <= {"sweep.json", *archive.KEPT}
    assert len(refused) > 100
    assert all("is no archive of `ham archive`" in text for text in refused)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(
        UserError, match="is a file; give the folder of a sweep or of a run, or what `ham archive` wrote"
    ):
        read(tmp_path / "x.txt")


def test_what_is_drawn_of_it_stays_when_the_command_has_ended(folder):
    """Its own folder is a temporary one, so figures and page lie beside it."""
    path = archived(folder)
    assert {drawn.parent for drawn in figures.write(path, form="svg")} == {path.with_suffix(".figures")}
