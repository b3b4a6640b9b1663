"""The HTML report in a real browser, as wide as a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_samples import cpu_bundle, finalized, jetson_bundle
from gate_samples import poisoned, real_run, run_on, too_wide

from edgekd.report import render_html
from edgekd.report.gate import render_gate_html
from edgekd.report.history import collect, render_history

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on the PATH")

# The report itself runs no script: the page around it measures.
WRAPPER = """<meta charset="utf-8">
<iframe id="report" style="width:WIDTHpx;height:12000px;border:0" srcdoc="REPORT"></iframe><pre id="found"></pre>
<script>
onload = () => {
  const report = document.getElementById("report").contentDocument;
  const boxes = [...report.querySelectorAll("main *")].filter(
    (one) => one.matches(".scroll, pre, svg") || !one.closest(".scroll, pre, svg"));
  const wide = boxes.filter((one) => one.getBoundingClientRect().right > WIDTH + 0.5);
  const over = wide.map((one) => one.outerHTML.slice(0, 60));
  document.getElementById("found").textContent =
    boxes.length + " boxes, " + report.documentElement.scrollWidth + " wide, over: " + over.join("; ");
};
</script>
"""


def final_bundle() -> tuple[dict[str, Any], dict[str, Any]]:
    manifest, measurements = jetson_bundle()
    return manifest, finalized(measurements, candidate="float")


def history_page() -> str:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{day}.json" for day in range(12)]
        for day, path in enumerate(paths):
            path.write_text(run_on(day, slower=1.1 if day > 5 else 1.0).model_dump_json(), encoding="utf-8")
        return render_history(collect(paths))


PAGES = {
    "bundle": (375, 100, lambda: render_html(*cpu_bundle())),
    "final": (375, 100, lambda: render_html(*final_bundle())),
    "gate": (360, 60, lambda: render_gate_html(real_run())),
    "noisy gate": (360, 60, lambda: render_gate_html(poisoned(too_wide()))),
    "history": (360, 30, history_page),
}


@pytest.mark.parametrize(("width", "boxes", "make"), PAGES.values(), ids=PAGES)
def test_is_no_wider_than_a_phone(tmp_path: Path, width: int, boxes: int, make: Callable[[], str]) -> None:
    """Tables and code may scroll inside their own boxes; the page may not, and no other box may stand out."""
    page = make().replace("&", "&amp;").replace('"', "&quot;")
    (tmp_path / "wrapper.html").write_text(WRAPPER.replace("WIDTH", str(width)).replace("REPORT", page))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=600,12100", "--dump-dom", (tmp_path / "wrapper.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(\d+) boxes, (\d+) wide, over: (.*?)</pre>', done.stdout)
    assert found is not None, done.stdout[-500:]
    assert int(found[1]) > boxes
    assert int(found[2]) == width
    assert found[3] == ""
