"""The runner of mutants fails on a survivor, on a patch that no longer applies, and on a death that says nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
RUNNER = Path(__file__).parents[1] / "mutants" / "run.py"

CODE = """def double(x):
    return 2 * x


def half(x):
    return x / 2
"""
TESTS = """import calc


def test_double():
    assert calc.double(3) == 6


def test_wrong():
    assert calc.half(3) == 2
"""
PATCH = """# {what}
# dies: tests/test_calc.py::{test}
--- a/calc.py
+++ b/calc.py
@@ -1,3 +1,3 @@
 def double(x):
-    return {old}
+    return {new}
 
"""
MUTANTS = {
    "killed": ("adds", "2 * x", "2 + x"),
    "survivor": ("is right", "2 * x", "x * 2"),
    "stale": ("no longer applies", "x + x", "2 + x"),
    "syntax": ("is no program", "2 * x", "2 *"),
    "imports": ("dies of an import", "2 * x", "__import__('no_such_module')"),
    "name": ("dies of a name", "2 * x", "2 * y"),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    mutants = folder / "tests/mutants/calc"
    mutants.mkdir(parents=True)
    (folder / "calc.py").write_text(CODE)
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (folder / "tests/test_calc.py").write_text(TESTS)
    shutil.copy(RUNNER, mutants.parent)
    for name, (what, old, new) in MUTANTS.items():
        (mutants / f"{name}.patch").write_text(PATCH.format(what=what, old=old, new=new, test="test_double"))
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


def run(project: Path, *names: str) -> tuple[int, str]:
    command = [sys.executable, project / "tests/mutants/run.py", "--preload", "pytest", "--jobs", "2", *names]
    # plugins of pytest that happen to be installed take longer to import than all the rest
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run(
        command, cwd=project.parent, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_only_a_death_by_the_test_is_a_death(project: Path) -> None:
    before = {path: path.read_text() for path in project.glob("*.py")}
    code, output = run(project)
    assert code == 1
    lines = {line.split(": ")[0]: line for line in output.splitlines() if line.startswith(("ok ", "FAIL"))}
    assert "killed by tests/test_calc.py::test_double: AssertionError" in lines.pop("ok   calc/killed")
    assert "pass" in lines.pop("ok   unmutated, part 1")
    assert "SURVIVED" in lines.pop("FAIL calc/survivor")
    assert "the patch no longer applies" in lines.pop("FAIL calc/stale")
    assert "not a program" in lines.pop("FAIL calc/syntax")
    assert "dies of something else: tests/test_calc.py::test_double: ModuleNotFoundError" in lines.pop(
        "FAIL calc/imports"
    )
    assert "NameError" in lines.pop("FAIL calc/name")
    assert not lines
    assert "1 of 6 mutants killed" in output
    assert {path: path.read_text() for path in project.glob("*.py")} == before


def test_one_by_name(project: Path) -> None:
    code, output = run(project, "calc/killed")
    assert (code, "1 of 1 mutants killed" in output) == (0, True)
    code, output = run(project, "calc/nothing")
    assert (code, output) == (1, "no such method or mutant: calc/nothing\n")


@pytest.mark.parametrize("test", ["test_wrong", "test_that_is_not_there"])
def test_the_tests_pass_before_anything_is_mutated(project: Path, test: str) -> None:
    patch = project / "tests/mutants/calc/killed.patch"
    patch.write_text(patch.read_text().replace("test_double", test))
    code, output = run(project, "calc/killed")
    assert code == 1
    assert "the named tests must pass before anything is mutated" in output
    assert "mutants killed" not in output
