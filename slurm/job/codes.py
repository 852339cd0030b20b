"""How a job's task tells the batch script around it how it ended."""

from __future__ import annotations

STOPPED, TERMINATED, CRASHED = 75, 76, 70
"""Exit codes of a job's task, besides 0 (done) and 1, 2 (failed for good): stopped at a checkpoint after a warning; the
same on SIGTERM; crashed. What is none of these is a crash too."""

RUNNING = "running"
"""What the verdict file holds until rank 0 has come to its end."""

VERDICT = "HAM_VERDICT"
"""Variable that names the file into which rank 0 writes its exit code."""
