"""Each test file in a process of its own: none may lean on what another has imported, made or set.

    python tests/alone.py [--jobs 2] [--marks "not slow"] [tests/unit/ham ...]

The processes are forked from one that has imported torch, which would take longer than the tests of most files.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path

from mutants.run import PRELOAD, preload

TESTS = Path(__file__).resolve().parent
MARKS = "not slow and not slurm and not integrations and not robust"
FINE = (0, 5)  # all passed; none was left by the marks


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("places", nargs="*", type=Path, default=[TESTS], help="files and folders; by default all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="files at a time")
    parser.add_argument("--marks", default=MARKS, help="which tests, as pytest's -m takes them")
    arguments = parser.parse_args()
    begun, failed, files = time.monotonic(), 0, 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # also so that no thread is there when forking
    preload(PRELOAD.split(","))
    with tempfile.TemporaryDirectory() as scratch:
        for file, code, seconds, output in carry_out(arguments.places, arguments.marks, arguments.jobs, Path(scratch)):
            files += 1
            failed += code not in FINE
            print(f"{'ok  ' if code in FINE else 'FAIL'} {file} ({seconds:.1f} s)", flush=True)
            if code not in FINE:
                print(output[-8000:], flush=True)
    print(f"{files - failed} of {files} files pass alone, in {time.monotonic() - begun:.0f} s")
    sys.exit(failed > 0)


def carry_out(places: list[Path], marks: str, jobs: int, scratch: Path) -> Iterator[tuple[Path, int, float, str]]:
    """Run the files, so many at a time; yields each as it ends, with its exit code, seconds and output."""
    waiting = sorted({file for place in places for file in (place.rglob("test_*.py") if place.is_dir() else [place])})
    context, running = multiprocessing.get_context("fork"), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            file = waiting.pop(0)
            output = scratch / f"{len(waiting)}.txt"
            process = context.Process(target=_alone, args=(file, marks, output))
            process.start()
            running[process] = file, output, time.monotonic()
        connection.wait([process.sentinel for process in running])
        for process, (file, output, begun) in list(running.items()):
            if process.exitcode is not None:
                del running[process]
                yield file, process.exitcode, time.monotonic() - begun, output.read_text()


def _alone(file: Path, marks: str, output: Path) -> None:
    import pytest

    with output.open("w") as written:
        os.dup2(written.fileno(), 1)
        os.dup2(written.fileno(), 2)
    sys.exit(int(pytest.main([str(file), "-q", "--tb=short", "-p", "no:cacheprovider", "-m", marks])))


if __name__ == "__main__":
    main()
