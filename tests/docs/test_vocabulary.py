"""The words of pages, help texts, configurations and docstrings: the field's terms, and English that is read once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.reference.commands import commands

ROOT = Path(__file__).resolve().parents[2]
_OF = "step|row|run|node|rank|layer|GPU|job|core|table|folder|class|seed|setting|cell|image"
_WHAT = (
    r"\d[\d.,]*|images|runs|seeds|epochs|ranks|nodes|processes|cells|settings|configurations|micro-batches|steps|bytes"
)
# what is not written: what is written instead
WORDS = {
    rf"\b(?:{_WHAT}) an? (?:{_OF})\b(?! (?:has|needs))": "per, as in 12 settings per row",
    r"\bweights (?:that|which) (?:no longer |do not )?exist": "active weights, pruned weights",
    r"\b(?:hold|holds|holding|held) (?:zero|0)\b": "include zero",
    r"\bst(?:and|ands|ood) (?:in|there|beside|here|below|above|under|where)\b": "is in, is below",
    r"\b(?:go|goes|going|went) on\b": "resume, continue",
    r"\b(?:is|are|was|were) told\b": "is said, is shown, is named",
    r"\bnever a guess\b": "say what is shown instead",
    r"\bsparsif(?:y|ied|ication)\b": "prune",
    r"\b(?:unmasked|surviving) weights\b": "active weights",
}


def prose(path: Path) -> str:
    """A page without code and without tables of numbers."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def docstrings(path: Path) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from (text for node in ast.walk(tree) if isinstance(node, kinds) and (text := ast.get_docstring(node)))


def texts() -> Iterator[tuple[str, str]]:
    """All texts that a reader meets, with their place."""
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for path in pages:
        if "_build" not in path.parts:
            yield path.relative_to(ROOT).as_posix(), prose(path)
    for package in ("ham", "sparsity", "experiments", "results", "slurm"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), "\n".join(docstrings(path))
    for path in sorted([*(ROOT / "configs").rglob("*.yaml"), ROOT / "slurm/profiles/default.yaml"]):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for name, command in commands():
        yield f"ham {name} --help", " ".join([command.help or "", *(one.help or "" for one in command.params)])


def found(text: str) -> list[str]:
    """What is not written, with what is written instead."""
    flat = " ".join(text.split())
    return [f"{hit[0]!r}: {better}" for bad, better in WORDS.items() for hit in re.finditer(bad, flat)]


def test_words_are_those_of_the_field():
    assert [f"{place}: {hit}" for place, text in texts() for hit in found(text)] == []


@pytest.mark.parametrize(
    "bad",
    ["9 runs a row", "an interval holds zero", "the run goes on", "weights that no longer exist", "it is told once"],
)
def test_bad_words_are_found(bad):
    assert len(found(bad)) == 1


def test_each_word_of_a_tables_head_is_in_the_glossary_or_the_page_on_tables():
    pages = [(ROOT / "docs" / name).read_text() for name in ("glossary.md", "start/reading_a_table.md")]
    for word in (
        "ERK",
        "Δ",
        "DST",
        "DtS",
        "PaI",
        "plain",
        "level",
        "cell",
        "FLOPs",
        "†",
        "Sparsity",
        "uniform",
        "balanced",
    ):
        assert any(word in page for page in pages), word
