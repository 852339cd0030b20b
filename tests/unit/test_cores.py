"""Workers by default: the cores of this process, and no more than its container pays for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments import cores


@pytest.mark.parametrize(
    ("membership", "files", "wanted"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, [1.5]),
        ("0::/", {"cpu.max": "max 100000"}, []),
        ("0::/a/b", {"cpu.max": "max 100000", "a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000"}, [0.5, 4]),
        ("0::/docker/of/the/host", {"cpu.max": "200000 100000"}, [2]),
        ("4:cpu,cpuacct:/x\n2:memory:/x", {"cpu,cpuacct/x/cpu.cfs_quota_us": "300000"}, [3]),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1"}, []),
        ("0::/", {"cpu.max": "nonsense"}, []),
        ("", {}, []),
    ],
)
def test_quotas(tmp_path: Path, membership: str, files: dict[str, str], wanted: list[float]) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        if name.endswith("quota_us"):
            path.with_name("cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "membership").write_text(membership + ("\n" if membership else ""))
    assert sorted(cores.quotas(tmp_path / "membership", tmp_path)) == wanted


def test_the_smaller_one_counts_and_one_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, quotas, wanted in (({0, 1, 2, 3}, [], 4), ({0, 1, 2, 3}, [2.5], 2), ({0}, [8.0], 1), ({0, 1}, [0.2], 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cpus=cpus: cpus, raising=False)
        monkeypatch.delattr(os, "process_cpu_count", raising=False)
        monkeypatch.setattr(cores, "quotas", lambda quotas=quotas: iter(quotas))
        assert cores.usable_cores() == wanted
