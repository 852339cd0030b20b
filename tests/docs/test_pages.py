"""The tree of pages: each is found from an index and by its headings, says what it is for, and leads on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import pictures

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
LINK = re.compile(r"\]\(([\w./]+\.md)(?:#([\w-]+))?\)")


def place(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


def headings(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)


def anchor(heading: str) -> str:
    """The anchor that a forge gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(path: Path) -> list[tuple[Path, str]]:
    text = path.read_text(encoding="utf-8")
    return [((path.parent / file).resolve(), at) for file, at in LINK.findall(text)]


def test_every_page_is_listed_by_the_index_of_its_folder_and_reached_from_the_first():
    reached, todo = set(), [DOCS / "index.md"]
    while todo:
        page = todo.pop()
        if page not in reached:
            reached.add(page)
            todo += [found for found, _ in links(page)]
    assert set(PAGES) <= reached
    for page in PAGES:
        index = page.parent / "index.md"
        assert page == index or page in {found for found, _ in links(index)}, place(page)


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_a_page_has_one_title_a_first_sentence_and_true_anchors(page: Path):
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M)) == 1
    for found, at in links(page):
        assert not at or at in {anchor(heading) for heading in headings(found)}, f"{found.name}#{at}"


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in ("changelog.md", "contributing.md")], ids=place)
def test_a_page_leads_on(page: Path):
    assert links(page) or "reference/api" in place(page) or page.parent.name == "results", place(page)


@pytest.mark.parametrize(
    "sought",
    [
        "own data",
        "own model",
        "LaTeX",
        "extends",
        "custom",
        "ONNX",
        "FAQ",
        "W&B",
        "GPU",
        "weights.pt",
        "install",
        "resume",
    ]
    + [
        "export",
        "pandas",
        "learning rate",
        "Slurm",
        "exit code",
        "glossary",
        "citing",
        "compar",
        "Lightning",
        "troubleshooting",
    ],
)
def test_what_people_search_for_is_in_a_heading(sought: str):
    found = [heading for page in PAGES for heading in headings(page) if sought.lower() in heading.lower()]
    assert found, sought


def test_imagenet_on_a_cluster_always_has_a_profile():
    """The default profile asks for no GPU."""
    for page in [*PAGES, ROOT / "README.md"]:
        for line in re.findall(r"^ham sweep .*imagenet.*--cluster slurm.*$", page.read_text(), flags=re.MULTILINE):
            assert "--profile" in line, line


def test_the_first_screen_of_the_readme_says_what_and_for_whom():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 100
    assert "researchers" in " ".join(lines[:5])
    assert "compare" in lines[0]


@pytest.mark.parametrize("name", ["axes", "step", "metric"])
def test_pictures_are_those_of_the_code(name: str):
    """That of the masks is a training, whose last bits are the machine's."""
    drawn = pictures.svg(pictures.PICTURES[name])
    assert (pictures.FOLDER / f"{name}.svg").read_text(encoding="utf-8") == drawn, "python -m scripts.pictures"
