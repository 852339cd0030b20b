"""Mutation tests: plausible wrong implementations, each a small patch, and the tests that must notice it.

A patch ``tests/mutants/<method>/<what_is_wrong>.patch`` begins with comments: one sentence on what is wrong, and
``# dies: <test> ...``, the tests of which one at least must fail. The named tests first run on an unmutated copy of the
tree, where all must pass. Then each patch is applied to a copy of its own. A mutant that survives fails, and so does a
patch that no longer applies, or a death that says nothing: in the import, in the syntax, before the test's own call.

    python tests/mutants/run.py [--jobs 2] [rigl ham/sign_before ...]
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# imported once, before forking; nothing of the project, which each child must import from its own copy
PRELOAD = "torch,torch._dynamo,torch.distributed,numpy,hypothesis,pydantic,yaml,pytest"
OPTIONS = ["-x", "-q", "--no-header", "--tb=short", "--assert=plain", "-p", "no:cacheprovider"]
PATIENCE = 200.0  # seconds for each test that a task names; shorter than the timeouts of pytest
NO_DEATH = (ImportError, SyntaxError, NameError)  # of a mutant that is no program


@dataclass(frozen=True)
class Task:
    """Tests to run on a copy of the tree: with a patch, of which one must fail, or without, where all must pass."""

    name: str
    tests: tuple[str, ...]
    patch: Path | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether a task ended as it must, in words, and what pytest printed if not."""

    good: bool
    words: str
    output: str = ""


def read(folder: Path) -> list[Task]:
    """All patches of a folder.

    Raises:
        SystemExit: if one does not say which tests it dies of.
    """
    tasks = []
    for path in sorted(folder.glob("*/*.patch")):
        comments = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
        tests = [test for line in comments if line.startswith("dies:") for test in line[5:].split()]
        if not tests or comments[0].startswith("dies:"):
            raise SystemExit(f"{path}: must begin with '# what is wrong' and '# dies: tests/...::test_...'")
        tasks.append(Task(f"{path.parent.name}/{path.stem}", tuple(tests), path))
    return tasks


def chosen(tasks: list[Task], names: list[str]) -> list[Task]:
    """The tasks of the named methods or mutants; all without names.

    Raises:
        SystemExit: for a name that means none.
    """
    for name in names:
        if not any(name in (task.name, task.name.split("/")[0]) for task in tasks):
            raise SystemExit(f"no such method or mutant: {name}")
    return [task for task in tasks if not names or {task.name, task.name.split("/")[0]} & set(names)]


def snapshot(target: Path) -> None:
    """Copy all files that git tracks or would track; in an exported tree without git, all but what is built."""
    # whoever the tree belongs to: builds often run as another user
    command = ["git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    names = listed.stdout.decode().split("\0")
    if listed.returncode:
        built = (".git", ".venv", "runs", "dist", "wandb")
        paths = (path.relative_to(ROOT) for top in ROOT.iterdir() if top.name not in built for path in _files(top))
        names = [str(path) for path in paths]
    for name in filter(None, names):
        if (ROOT / name).is_file():  # else it is deleted, and git does not know yet
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def _files(top: Path) -> Iterator[Path]:
    return top.rglob("*") if top.is_dir() else iter([top])


# ---- in a process of its own ----------------------------------------------------------------------------------------


class Witness:
    """A pytest plugin that notes what was raised, and where."""

    def __init__(self) -> None:
        self.deaths: list[str] = []
        self.faults: list[str] = []
        self.passed: set[str] = set()

    def pytest_exception_interact(self, node: Any, call: Any) -> None:
        """A test failed, or something before or after it."""
        kind, where = call.excinfo.type, f"{node.nodeid}: {call.excinfo.typename}"
        if call.when == "call" and not issubclass(kind, NO_DEATH):
            self.deaths.append(where)
        else:
            self.faults.append(f"{where} ({call.when})")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test passed."""
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)


def judge(task: Task, folder: Path) -> Verdict:
    """Apply the patch to the copy, if there is one, and run the tests there."""
    if task.patch is not None:
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
        command = ["git", "apply", "--whitespace=nowarn", str(task.patch)]
        applied = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if applied.returncode:
            return Verdict(False, "the patch no longer applies", applied.stderr)
        for name in re.findall(r"^\+\+\+ b/(\S+\.py)", task.patch.read_text(), flags=re.MULTILINE):
            try:
                compile((folder / name).read_text(), name, "exec")
            except SyntaxError as error:
                return Verdict(False, f"not a program: {error}")
    import pytest

    witness = Witness()
    code = pytest.main([*OPTIONS, f"--basetemp={folder.parent / 'pytest'}", *task.tests], plugins=[witness])
    if task.patch is None:
        ran = "".join(f"{seen}\n" for seen in witness.passed)
        missing = [test for test in task.tests if not re.search(rf"^{re.escape(test)}(\[|::|$)", ran, re.MULTILINE)]
        good = code == 0 and not missing
        return Verdict(good, "pass" if good else f"fail, or do not run: {', '.join(witness.deaths or missing)}")
    if witness.faults:
        return Verdict(False, f"dies of something else: {witness.faults[0]}")
    if code == 1 and witness.deaths:
        return Verdict(True, f"killed by {witness.deaths[0]}")
    return Verdict(False, "SURVIVED" if code == 0 else f"pytest ended with {int(code)}")


def _in_child(task: Task, place: Path) -> None:
    os.setsid()  # so that it can be ended with all that it starts
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    folder = place / "tree"
    # links will do: git puts new files in place of those it patches
    shutil.copytree(place.parent / "base", folder, copy_function=os.link)
    with (place / "output").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(folder)
    # the tree's own packages come before an installed project, also in processes that a test starts
    sys.path[0] = os.environ["PYTHONPATH"] = str(folder)
    # sources change within a second and without changing their size, which is all that a cache would look at
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    verdict = judge(task, folder)
    (place / "verdict").write_text(json.dumps([verdict.good, verdict.words, verdict.output]))


# ---- all of them ----------------------------------------------------------------------------------------------------


def carry_out(tasks: list[Task], jobs: int, scratch: Path) -> Iterator[tuple[Task, Verdict, float]]:
    """Judge the tasks, so many at a time; yields each as it ends, with the seconds it took."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(tasks), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                place = Path(tempfile.mkdtemp(dir=scratch))
                process = context.Process(target=_in_child, args=(waiting[0], place))
                process.start()
                running[process] = waiting.pop(0), place, time.monotonic()
            connection.wait([process.sentinel for process in running], timeout=1)
            for process, (task, place, begun) in list(running.items()):
                seconds = time.monotonic() - begun
                if process.is_alive() and seconds < PATIENCE * len(task.tests):
                    continue
                _end(process)
                del running[process]
                yield task, _verdict(place), seconds
                shutil.rmtree(place, ignore_errors=True)
    finally:
        for process in running:
            _end(process)


def _end(process: Any) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _verdict(place: Path) -> Verdict:
    output = (place / "output").read_text() if (place / "output").exists() else ""
    if not (place / "verdict").exists():
        return Verdict(False, f"no answer within {PATIENCE:g} s a test, or a crash", output)
    good, words, more = json.loads((place / "verdict").read_text())
    return Verdict(good, words, more or output)


def report(tasks: list[Task], jobs: int, scratch: Path) -> int:
    """Carry out tasks, print a line about each, and count those that did not end as they must."""
    failures = 0
    for task, verdict, seconds in carry_out(tasks, jobs, scratch):
        print(f"{'ok  ' if verdict.good else 'FAIL'} {task.name}: {verdict.words} ({seconds:.1f} s)", flush=True)
        if not verdict.good:
            failures += 1
            print("".join(f"     {line}\n" for line in verdict.output.splitlines()[-30:]), end="", flush=True)
    return failures


def shares(tests: list[str], number: int) -> list[Task]:
    """The tests on the unmutated tree, those of one file together."""
    files = sorted({test.split("::")[0] for test in tests})
    parts = [[test for test in tests if test.split("::")[0] in files[i::number]] for i in range(number)]
    return [Task(f"unmutated, part {i}", tuple(part)) for i, part in enumerate(parts, 1) if part]


def preload(names: list[str]) -> None:
    """Import modules and the plugins that pytest will load, once for all children."""
    for name in names:
        importlib.import_module(name)
    if "PYTEST_DISABLE_PLUGIN_AUTOLOAD" not in os.environ:
        for plugin in metadata.entry_points(group="pytest11"):
            plugin.load()
    gc.freeze()  # pytest collects garbage thoroughly; what is here now will never be any


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help="methods or method/mutant; all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time")
    parser.add_argument("--preload", default=PRELOAD, help="modules imported once, before all")
    arguments = parser.parse_args()
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of what ends the children
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # also so that no thread is there when forking
    tasks = chosen(read(Path(__file__).parent), arguments.names)
    preload([name for name in arguments.preload.split(",") if name])
    with tempfile.TemporaryDirectory() as scratch:
        (base := Path(scratch).resolve() / "base").mkdir()
        snapshot(base)
        tests = list(dict.fromkeys(test for task in tasks for test in task.tests))
        if report(shares(tests, arguments.jobs), arguments.jobs, base.parent):
            sys.exit("the named tests must pass before anything is mutated")
        failures = report(tasks, arguments.jobs, base.parent)
    seconds = time.monotonic() - begun
    print(f"{len(tasks) - failures} of {len(tasks)} mutants killed, in {seconds:.0f} s")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
