"""Chromium, without a window, and the viewer in a process of its own: what the tests of the viewer share.

    with open_browser() as browser, serve_in_process(folder) as served, open_page(browser, served) as page:
        page.picture("image-1")

Machines without Chromium skip such tests; with SKYLOOM_REQUIRE_BROWSER=1 they fail.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import ROOT

PATIENCE = 120_000  # Milliseconds; a busy machine needs some.
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


def require_browser() -> str:
    """Return the Chromium of this machine; the test skips, or fails where one is required, without it."""
    found = next((path for path in CHROMIUM if Path(path).exists()), shutil.which("chromium"))
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        found = None
    if found is None:
        message = "Chromium or playwright is absent"
        if os.environ.get("SKYLOOM_REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@contextmanager
def open_browser() -> Iterator[Any]:
    """Give a headless Chromium of playwright; one per module is enough."""
    path = require_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Served:
    """A viewer in a process: its address, with the token, and its process."""

    address: str
    process: subprocess.Popen[str]

    @property
    def host(self) -> str:
        """127.0.0.1:port."""
        return urlsplit(self.address).netloc

    def memory(self) -> int:
        """Bytes that the process has in memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def peak_memory(self) -> int:
        """The most it ever had."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@contextmanager
def serve_in_process(path: Path, *options: str) -> Iterator[Served]:
    """Run ``skyloom view PATH --no-browser`` and give its address; it ends with SIGTERM."""
    command = [sys.executable, "-m", "skyloom.cli", "view", str(path), "--no-browser", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        while line and "http://" not in line:
            line = process.stdout.readline()
        assert line, process.stderr.read()
        yield Served(next(word for word in line.split() if word.startswith("http://")), process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@dataclass
class ViewerPage:
    """A page of the viewer: what it asked for, what it complained of, and short ways to its models.

    Attributes
    ----------
    page : playwright page
    requests : list of str
        Every address that was asked for, websockets included.
    complaints : list of str
        Errors in the console and exceptions.
    """

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def model(self, name: str, expression: str) -> Any:
        """Evaluate JavaScript on the Bokeh model of that name, called ``model`` in it."""
        script = f"""() => {{
            const model = Bokeh.documents[0].get_model_by_name({name!r});
            if (model == null) throw new Error("no model named {name}");
            return ({expression});
        }}"""
        return self.page.evaluate(script)

    def wait_for(self, name: str, condition: str, timeout: int = PATIENCE) -> None:
        """Wait until JavaScript on the model of that name is true; the model may appear meanwhile."""
        script = f"""() => {{
            if (typeof Bokeh === "undefined" || Bokeh.documents.length === 0) return false;
            const model = Bokeh.documents[0].get_model_by_name({name!r});
            return model != null && Boolean({condition});
        }}"""
        self.page.wait_for_function(script, timeout=timeout)

    def set_value(self, name: str, value: Any, attribute: str = "value") -> None:
        """Set the value of a widget (or another attribute of a model) as its user would."""
        self.page.evaluate(
            "([name, key, value]) => { Bokeh.documents[0].get_model_by_name(name)[key] = value }",
            [name, attribute, value],
        )

    def settle(self) -> None:
        """Wait until everything is drawn and what was to follow of it has followed."""
        self.page.wait_for_function("() => Bokeh.documents[0].is_idle", timeout=PATIENCE)
        frames = "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 100)))"
        self.page.evaluate(f"() => new Promise((done) => {frames})")

    def press(self, name: str) -> None:
        """Press a button."""
        self.page.evaluate(
            """(name) => {
                const model = Bokeh.documents[0].get_model_by_name(name);
                Bokeh.index.find_one(model).shadow_el.querySelector("button").click();
            }""",
            name,
        )

    def screen_place(self, name: str, x: float, y: float) -> tuple[float, float]:
        """Return where a point in the coordinates of a figure is on the page; scroll there if need be."""
        place = self.page.evaluate(
            """([name, x, y]) => {
                const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name(name));
                view.el.scrollIntoView({block: "center", behavior: "instant"});
                const box = view.el.getBoundingClientRect();
                return [box.left + view.frame.x_scale.compute(x), box.top + view.frame.y_scale.compute(y)];
            }""",
            [name, x, y],
        )
        return float(place[0]), float(place[1])

    def click_at(self, name: str, x: float, y: float) -> None:
        """Click on a point of a figure, given in its own coordinates."""
        left, top = self.screen_place(name, x, y)
        self.page.mouse.move(left, top)
        self.page.mouse.click(left, top)

    def hover_at(self, name: str, x: float, y: float) -> None:
        """Move the pointer to a point of a figure, given in its own coordinates."""
        left, top = self.screen_place(name, x, y)
        self.page.mouse.move(left - 1, top)
        self.page.mouse.move(left, top)

    @property
    def strange_requests(self) -> list[str]:
        """Requests to anything but this machine."""
        own = ("data:", "blob:", "about:")
        return [
            url for url in self.requests if not url.startswith(own) and urlsplit(url).hostname != "127.0.0.1"
        ]


@contextmanager
def open_page(browser: Any, served: Served, *, width: int = 1400, height: int = 900) -> Iterator[ViewerPage]:
    """Open the page of a viewer, keeping record of all that it asks for; wait until Bokeh has drawn it."""
    context = browser.new_context(viewport={"width": width, "height": height})
    try:
        page = context.new_page()
        viewer = ViewerPage(page)
        page.on("request", lambda request: viewer.requests.append(request.url))
        page.on("websocket", lambda socket: viewer.requests.append(socket.url))
        page.on("pageerror", lambda error: viewer.complaints.append(str(error)))
        page.on(
            "console",
            lambda message: viewer.complaints.append(message.text) if message.type == "error" else None,
        )
        answer = page.goto(served.address, timeout=PATIENCE)
        assert answer is not None
        assert answer.ok, "the page could not be made; see the server's complaint"
        page.wait_for_function(
            "() => typeof Bokeh !== 'undefined' && Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle",
            timeout=PATIENCE,
        )
        yield viewer
    finally:
        context.close()
