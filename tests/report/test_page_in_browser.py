"""The page in a real headless Chromium: it fits a phone, follows light and dark, draws its charts, loads nothing."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rembert_ray.report.closing import report_on
from rembert_ray.report.page import page_place
from rembert_ray.storage.location import locate
from tests.report.finished import finish, labels, vectors

CHROMIUM = Path(__file__).parent.parent / "servers" / "chromium.sh"
# Measures the page from outside, in a frame of the width that is asked for: the page itself allows no script.
OUTSIDE = """<!doctype html><iframe id="page" src="report.html" style="width:{width}px;height:900px;border:0"></iframe>
<pre id="found"></pre><script>
document.getElementById("page").onload = event => {{
  const inside = event.target.contentWindow, page = inside.document, root = page.documentElement;
  const charts = [...page.querySelectorAll("figure svg")].map(svg => svg.getBoundingClientRect());
  const colour = element => inside.getComputedStyle(element).backgroundColor;
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.clientWidth, content: root.scrollWidth, n_charts: charts.length,
    narrowest: Math.min(...charts.map(box => box.width)), lowest: Math.min(...charts.map(box => box.height)),
    paper: colour(page.body), bar: inside.getComputedStyle(root).getPropertyValue("--now").trim(),
    text: page.body.innerText, requests: inside.performance.getEntriesByType("resource").map(entry => entry.name),
  }});
}};
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    """Path of the browser."""
    found = subprocess.run(["bash", str(CHROMIUM)], capture_output=True, text=True, timeout=600, check=False)
    if found.returncode == 3:
        pytest.skip(found.stderr.strip())
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a line on stderr for each; `paths` is what was asked for."""

    paths: ClassVar[list[str]] = []

    def log_message(self, format: str, *args: Any) -> None:
        self.paths.append(self.path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of a classification with drift and of embeddings."""
    folder = tmp_path_factory.mktemp("reports")
    old, _ = finish(folder / "old", "classify", labels({"en": 0.7, "de": 0.3}))
    new, _ = finish(folder / "new", "classify", labels({"en": 0.2, "de" * 40: 0.8}))
    maps, _ = finish(folder / "embed", "embed", vectors)
    report_on(str(old))
    for output, against in ((new, str(old)), (maps, None)):
        report_on(str(output), against)
    return folder


@pytest.fixture
def serve(folder: Path) -> Iterator[tuple[str, Path]]:
    """A server on loopback: its address, and the folder that it serves."""
    root = folder / "served"
    root.mkdir(exist_ok=True)
    Quiet.paths.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()


def look(chromium: str, serve: tuple[str, Path], output: Path, width: int, *options: str) -> dict[str, Any]:
    """What the browser makes of the page of an output, in a window of this width."""
    address, root = serve
    (root / "report.html").write_bytes(Path(page_place(locate(str(output))).path).read_bytes())
    (root / "outside.html").write_text(OUTSIDE.format(width=width))
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", *options]
    done = subprocess.run(
        [*command, f"--user-data-dir={root / 'profile'}", "--dump-dom", f"{address}/outside.html"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.split('<pre id="found">')[1].split("</pre>")[0]
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&nbsp;", " "), ("&amp;", "&")):
        text = text.replace(entity, char)
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize("name", ["new", "embed"])
def test_the_page_fits_a_phone_and_a_desk_and_loads_nothing(chromium, serve, folder, name):
    for width in (360, 1280):
        found = look(chromium, serve, folder / name / "out", width)
        assert found["content"] <= found["width"] <= width, "nothing sticks out"
        assert found["n_charts"] >= 4
        assert found["narrowest"] >= 250, "charts are never squeezed until nobody can read them"
        assert found["lowest"] > 40
        assert found["requests"] == []
        assert "All 600 rows are there" in found["text"]
    assert set(Quiet.paths) <= {"/outside.html", "/report.html", "/favicon.ico"}


def test_the_page_follows_light_and_dark(chromium, serve, folder):
    light = look(chromium, serve, folder / "new" / "out", 800)
    dark = look(chromium, serve, folder / "new" / "out", 800, "--force-dark-mode")
    assert (light["paper"], dark["paper"]) == ("rgb(255, 255, 255)", "rgb(21, 23, 26)")
    assert light["bar"] != dark["bar"]
