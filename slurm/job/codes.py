"""Exit codes by which a job's task reports to the batch script how it ended."""

from __future__ import annotations

STOPPED, TERMINATED, CRASHED = 75, 76, 70
"""Exit codes of a job's task, besides 0 (done) and 1, 2 (failed for good): stopped at a checkpoint after a warning;
stopped at a checkpoint on SIGTERM; crashed. Any other code means a crash too."""

RUNNING = "running"
"""Content of the verdict file until rank 0 has ended; before rank 0 speaks, the batch script writes its own."""

VERDICT = "HAM_VERDICT"
"""Environment variable with the path of the file into which rank 0 writes its exit code."""

CRASHES = "HAM_CRASHES"
"""Environment variable with the path of the file in which the batch script notes the starts that have crashed, one
restart count a line."""
