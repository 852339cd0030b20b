"""The report as a browser shows it."""

from __future__ import annotations

import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from commands import Ham
from small_runs import result, write_config

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1200,1600",
]
ROWS = {
    "Dense": {},
    "RiGL": {"topology": {"name": "rigl", "sparsity": 0.9, "update_every": 4}},
    "RiGL + HAM": {"topology": {"name": "rigl", "sparsity": 0.9, "update_every": 4}, "optimizer.ham": {"alpha": 20.0}},
}

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("HAM_REQUIRE_BROWSER") == "1":
            pytest.fail("HAM_REQUIRE_BROWSER=1, but there is no Chromium on the PATH")
        pytest.skip("there is no Chromium on the PATH")
    return found


class Cells(HTMLParser):
    """Texts of the tables' cells, row by row."""

    def __init__(self, page: str):
        super().__init__()
        self.rows: list[list[str]] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data


def test_the_report_in_a_browser(ham: Ham, tmp_path: Path, chromium: str) -> None:
    from matplotlib import image

    sweep = {"rows": ROWS, "seeds": [0, 1], "baselines": {"RiGL + HAM": "RiGL"}, "title": "A small <table> & its rows"}
    config = write_config(tmp_path / "small.yaml", sweep=sweep)
    assert ham("sweep", config, "--out", tmp_path / "runs", "--jobs", 2).code == 0
    called = ham("report", tmp_path / "runs/small")
    assert called.code == 0
    page = Path(called.out.strip())
    assert page == tmp_path / "runs/small/report.html"

    def browse(*arguments: str) -> str:
        command = [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    dom = browse("--dump-dom")
    assert "A small &lt;table&gt; &amp; its rows" in dom
    shown = Cells(dom).rows
    for row in ROWS:
        assert any(cells and cells[0].strip() == row for cells in shown), row
    accuracies = [result(path)["accuracy"] for path in sorted((tmp_path / "runs/small").glob("dense-*-s?"))]
    mean = f"{100 * sum(accuracies) / len(accuracies):.2f}"
    dense = next(cells for cells in shown if cells and cells[0].strip() == "Dense")
    assert any(mean in cell for cell in dense[1:]), dense

    browse(f"--screenshot={tmp_path / 'page.png'}")
    pixels = image.imread(tmp_path / "page.png")[..., :3]
    assert pixels.shape == (1600, 1200, 3)
    colours, counts = np.unique((pixels.reshape(-1, 3) * 255).round().astype(int), axis=0, return_counts=True)
    assert len(colours) > 20
    assert counts.max() < 0.995 * counts.sum(), "the page is all but blank"
    coloured = np.ptp(colours, axis=1) > 40
    assert counts[coloured].sum() > 200, "no curve is drawn in colour"
