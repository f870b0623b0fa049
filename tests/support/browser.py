"""A page in a real headless Chromium, at any width: what a reader sees of it, found by a script that scrolls there.

    python -m tests.support.browser PAGE.html IMAGE.png [WIDTH] [HEIGHT]

takes a screenshot.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from html import escape, unescape
from pathlib import Path
from typing import Any

SECONDS = 120  # after which a browser that hangs is ended, with all its processes

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=20000", "--hide-scrollbars",
)  # fmt: skip

# Chromium's own window is never narrower than 500 px, a frame can be.
FRAME = """<!doctype html><html><body style="margin:0">
<iframe src="{page}" style="border:0;width:{width}px;height:{height}px"></iframe>
<script>addEventListener("message", function (m) {{
  var p = document.createElement("pre"); p.id = "probe"; p.textContent = m.data; document.body.append(p);
}});</script></body></html>"""

ERRORS = "<script>window.probeErrors = []; onerror = function (m) { window.probeErrors.push(m); };</script>"

PROBE = """<script>
function luminance(c) {
  return c.slice(0, 3).map(function (v) {
    v /= 255;
    return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4);
  }).reduce(function (s, v, i) { return s + v * [0.2126, 0.7152, 0.0722][i]; }, 0);
}
function numbers(c) { return (c.match(/[\\d.]+/g) || []).map(Number); }
function background(e) {
  for (; e; e = e.parentElement) {
    var c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0.5) { return c; }
  }
  return [255, 255, 255];
}
function wrong(e) {   // "" where a reader who scrolls there can read it
  e.scrollIntoView({block: "center", inline: "center"});
  var r = e.getBoundingClientRect(), s = getComputedStyle(e);
  if (r.width < 2 || r.height < 8) { return "no area"; }
  if (s.visibility !== "visible" || Number(s.opacity) < 0.5) { return "not visible"; }
  if (parseFloat(s.fontSize) < 10 && e.tagName !== "IMG") { return "letters of " + s.fontSize; }
  var x = Math.max(1, Math.min(innerWidth - 1, r.left + Math.min(r.width, innerWidth) / 2)), y = r.top + r.height / 2;
  if (r.height > innerHeight) { y = innerHeight / 2; }
  var top = document.elementFromPoint(x, y);
  if (!top) { return "out of sight at " + Math.round(r.left) + "," + Math.round(r.top); }
  var part = "td,th,li,section";   // the point may lie between two lines of a text, next to its last word
  if (!(top === e || e.contains(top) || top.contains(e) && top.closest(part) === e.closest(part))) {
    return "covered by " + top.tagName;
  }
  var a = luminance(numbers(s.color)), b = luminance(background(e));
  if (e.tagName !== "IMG" && (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) { return "faint: " + s.color; }
  return "";
}
function cells(selector) {
  var table = document.querySelector(selector);
  return table && Array.from(table.rows).map(function (r) {
    return Array.from(r.cells).map(function (c) { return c.innerText.trim(); });
  });
}
addEventListener("load", function () {
  var seen = {errors: window.probeErrors, inner: innerWidth};
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  document.querySelectorAll("details > summary").forEach(function (s) { s.click(); });
  var read = "h1,h2,h3,th,td,li,p,img,.stamp,.warn,.bad,nav a,summary";
  seen.wrong = Array.from(document.querySelectorAll(read)).filter(function (e) {
    return e.tagName === "IMG" || e.textContent.trim();
  }).map(function (e) { return [wrong(e), e.tagName + ": " + (e.alt || e.textContent).slice(0, 60)]; })
    .filter(function (w) { return w[0]; });
  seen.images = Array.from(document.images).map(function (i) {
    return [i.alt, i.naturalWidth, i.getBoundingClientRect().width];
  });
  seen.jumps = Array.from(document.querySelectorAll('nav a[href^="#"]')).map(function (a) {
    location.hash = a.getAttribute("href");
    var to = a.getAttribute("href"), h = document.querySelector(to + " h2," + to + " h3");
    var r = h.getBoundingClientRect();
    return [h.innerText, h.contains(document.elementFromPoint(r.left + 5, r.top + 3))];
  });
  SEEN
  parent.postMessage(JSON.stringify(seen), "*");
});
</script>"""


def _chromium(page: Path, tmp_path: Path, *flags: str) -> tuple[str, str]:
    """Opens the page and ends; returns what Chromium writes to stdout and stderr."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "Chromium is not installed: apt-get install chromium"
    command = [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, f"file://{page}"]
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            return process.communicate(timeout=SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def browse(page: Path, tmp_path: Path, *flags: str) -> tuple[str, list[str]]:
    """The DOM after the scripts ran, and the lines of the console."""
    dom, log = _chromium(page, tmp_path, *flags, "--dump-dom")
    return dom, [line for line in log.splitlines() if "CONSOLE" in line]


def screenshot(page: Path, image: Path, tmp_path: Path, width: int = 1300, height: int = 2000) -> None:
    """Writes a PNG of the page's first ``height`` pixels in a window of this width."""
    frame = tmp_path / f"frame-{width}.html"
    frame.write_text(FRAME.format(page=escape(page.resolve().as_uri()), width=width, height=height))
    _chromium(frame, tmp_path, f"--screenshot={image.resolve()}", f"--window-size={max(width, 500)},{height}")


def look(page: Path, tmp_path: Path, width: int, script: str = "") -> dict[str, Any]:
    """What a window of this width shows of the page; ``script`` adds to ``seen``, and may click like a reader."""
    probed, frame = tmp_path / "probed.html", tmp_path / f"frame-{width}.html"
    text = page.read_text().replace("<head>", "<head>" + ERRORS)
    probed.write_text(text.replace("</body>", PROBE.replace("SEEN", script) + "</body>"))
    frame.write_text(FRAME.format(page=escape(probed.name), width=width, height=900))
    dom, console = browse(frame, tmp_path, f"--window-size={max(width, 500)},900")
    assert console == []
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)
    assert found, "the page's scripts did not come to their end"
    return json.loads(unescape(found[1]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        screenshot(Path(sys.argv[1]), Path(sys.argv[2]), Path(place), *map(int, sys.argv[3:]))
