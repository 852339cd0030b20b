"""The code of a user's modules: any edit of a module, or of what it imports from its own folder, is another run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.config import code
from experiments.config.identity import identity
from experiments.config.methods import import_modules
from experiments.config.resolve import load, resolve

FILES = {
    "mine.py": "import os\nfrom mine_helper import N\n\ndef late():\n    import mine_late\n",
    "mine_helper.py": "N = 1\n",
    "mine_late.py": "from mine_pkg.deep import thing\n",
    "mine_pkg/__init__.py": "",
    "mine_pkg/deep/__init__.py": "from . import thing\nfrom ..sibling import x\n",
    "mine_pkg/deep/thing.py": "",
    "mine_pkg/sibling.py": "x = 1\n",
    "os.py": "raise SystemExit\n",  # hides nothing, since the standard library comes first; counted all the same
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith("mine")]:
        del sys.modules[name]


def digest(folder: Path, module: str = "mine") -> str:
    """What a new process says."""
    forget()
    import_modules([module], [folder], None)
    return code.digest(sys.modules[module])


@pytest.mark.parametrize("name", FILES)
def test_an_edit_anywhere_in_what_is_imported_counts(folder: Path, name: str) -> None:
    before = digest(folder)
    path = folder / name
    path.write_text(path.read_text() + "# another word\n")
    assert digest(folder) != before


def test_what_is_not_imported_or_not_there_does_not_count(folder: Path) -> None:
    before = digest(folder)
    (folder / "other.py").write_text("x = 1\n")
    (folder / "mine_pkg/unused.py").write_text("x = 1\n")
    (folder / "notes.txt").write_text("x")
    assert digest(folder) == before


def test_the_place_does_not_count(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = digest(folder)
    folder.rename(moved := tmp_path_factory.mktemp("moved") / "code")
    sys.path.remove(str(folder))
    assert digest(moved) == before


def test_a_snapshot_of_the_suite_beside_it_does_not_count(folder: Path) -> None:
    """A job on Slurm imports the module from a folder that holds the suite too."""
    (folder / "mine_late.py").write_text("from experiments.errors import UserError\nimport sparsity.masks\n")
    before = digest(folder)
    for name in ("experiments/__init__.py", "experiments/errors.py", "sparsity/__init__.py", "sparsity/masks.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    assert digest(folder) == before


@pytest.mark.parametrize("name", ["mine_pkg", "mine_pkg.deep", "mine_pkg.deep.thing"])
def test_packages_and_modules_in_them(folder: Path, name: str) -> None:
    before = digest(folder, name)
    for file in (folder / "mine_pkg").rglob("*.py"):
        text = file.read_text()
        file.write_text(text + "# x\n")
        edited = digest(folder, name) != before
        file.write_text(text)
        called = f"mine_pkg/{file.relative_to(folder / 'mine_pkg').as_posix()}"
        assert edited or called not in {f"{name.replace('.', '/')}.py", f"{name.replace('.', '/')}/__init__.py"}
    assert digest(folder, name) == before


def test_of_what_is_installed_its_own_package_counts() -> None:
    root = code._root(importlib.import_module("yaml"))
    assert root is not None
    assert code._followed(root, "yaml.nodes", "yaml")
    assert not code._followed(root, "torch", "yaml")


def test_it_is_the_code_that_runs_and_not_a_later_edit(folder: Path) -> None:
    import_modules(["mine"], [folder], None)
    module = sys.modules["mine"]
    before = code.digest(module)
    (folder / "mine.py").write_text("x = 2\n")
    import_modules(["mine"], [folder], None)
    assert code.digest(module) == before
    assert not list(folder.rglob("__pycache__")), "compiled files outlive an edit within the same second"


def test_it_is_part_of_the_identity(folder: Path) -> None:
    def now() -> str:
        forget()
        import_modules(["mine"], [folder], None)
        return identity(resolve(load("base", ["imports=[mine]"])))

    before = now()
    assert before != identity(resolve(load("base")))
    (folder / "mine_helper.py").write_text("N = 2\n")
    assert now() != before
