"""A real JupyterLab in a real browser for the tests: needs playwright, and a Chromium on the machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

# Every picture that an <img> is given: its size, how tall it stands on the page, and a hash of its pixels.
RECORD = """image => {
  image.dataset.same = 'yes';
  const seen = image.seen = [], canvas = document.createElement('canvas');
  image.look = () => {
    canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
    const brush = canvas.getContext('2d', {willReadFrequently: true});
    brush.drawImage(image, 0, 0);
    let hash = 0;
    for (const value of brush.getImageData(0, 0, canvas.width, canvas.height).data) hash = (hash * 31 + value) | 0;
    return {at: performance.now(), width: image.naturalWidth, tall: image.getBoundingClientRect().height, hash};
  };
  image.addEventListener('load', () => seen.push(image.look()));
  // What is on the screen at every frame: an image of no width would be a flicker.
  image.blank = 0;
  const watch = () => { if (!image.getBoundingClientRect().height) image.blank++; requestAnimationFrame(watch); };
  watch();
}"""


@contextlib.contextmanager
def jupyter_lab(root: Path) -> Iterator[str]:
    """A JupyterLab on a folder, with settings of its own; gives the address to open, token included."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, home = secrets.token_hex(16), root / ".jupyter"
    # Every cell on the page, so that it can be found wherever it is; and no question about news over it.
    for name, text in (
        ("notebook-extension/tracker", '{"windowingMode": "none"}'),
        ("apputils-extension/notification", '{"fetchNews": "false", "checkForUpdates": false}'),
    ):
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    folders = {"JUPYTER_CONFIG_DIR": home, "JUPYTER_RUNTIME_DIR": home / "run", "IPYTHONDIR": home / "ipython",
               "JUPYTERLAB_SETTINGS_DIR": home / "settings", "JUPYTERLAB_WORKSPACES_DIR": home / "work"}  # fmt: skip
    python_path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {name: str(folder) for name, folder in folders.items()} | {"PYTHONPATH": python_path}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--ip=127.0.0.1", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"]
    address = f"http://127.0.0.1:{port}"
    with open(root / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(f"{address}/api?token={token}", server)
            yield f"{address}/lab?reset&token={token}"  # without the notebooks that an earlier page had open
        finally:
            # A terminated server shuts its kernels down.
            server.terminate()
            server.wait(30)


def _wait_for(address: str, server: subprocess.Popen, timeout_s: float = 90) -> None:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(address):
            return
        time.sleep(0.3)
    raise RuntimeError(f"JupyterLab does not answer; it ended with {server.poll()}")


def installed() -> str | None:
    """The machine's Chromium, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def browser(width: int = 1400, height: int = 1300) -> Iterator[Any]:
    """A page of playwright, in the machine's Chromium."""
    from playwright.sync_api import sync_playwright

    found = installed()
    with sync_playwright() as play:
        chromium = play.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        try:
            yield chromium.new_page(viewport={"width": width, "height": height})
        finally:
            chromium.close()


def notebook_with(source: Path, target: Path, **parameters: Any) -> None:
    """A copy of a notebook with other defaults in its cell of parameters."""
    notebook = nbformat.read(source, 4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    nbformat.write(notebook, target)


def open_and_run(page: Any, address: str, path: str, timeout_s: float = 240) -> None:
    """Open a notebook in JupyterLab, run all its cells, and fail where one of them raised."""
    page.goto(address, timeout=90_000)
    page.wait_for_function("window.jupyterapp !== undefined", timeout=90_000)
    page.evaluate("async path => { await jupyterapp.restored; await jupyterapp.commands.execute("
                  "'docmanager:open', {path, factory: 'Notebook'}) }", path)  # fmt: skip
    page.wait_for_function(
        "() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'", timeout=90_000
    )
    page.set_default_timeout(timeout_s * 1000)
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
        " && !document.querySelector('.jp-Notebook .jp-CodeCell.jp-mod-outputsScrolled.jp-mod-busy')"
        " && ![...document.querySelectorAll('.jp-Notebook .jp-InputPrompt')].some(p => p.innerText.includes('*'))",
        timeout=timeout_s * 1000,
    )
    errors = page.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts()
    assert not errors, errors
    page.set_default_timeout(30_000)


class Picture:
    """An <img> of a widget, and the record of what it showed."""

    def __init__(self, page: Any, stage: Any):
        self.page, self.image = page, stage.locator("img")
        self.image.scroll_into_view_if_needed()
        self.image.evaluate(RECORD)

    def now(self) -> dict:
        """Size in pixels, height on the page, and hash of what it shows."""
        return self.image.evaluate("image => image.look()")

    def take(self) -> list[dict]:
        """What it showed since the last call."""
        return self.image.evaluate("image => image.seen.splice(0)")

    def rest(self, quiet_ms: int = 700, timeout_s: float = 20) -> dict:
        """Wait until it shows nothing new, then say what it shows."""
        until, last = time.monotonic() + timeout_s, None
        while time.monotonic() < until:
            now = self.now()
            if last is not None and now["hash"] == last["hash"] and now["width"] == last["width"]:
                return now
            last = now
            self.page.wait_for_timeout(quiet_ms)
        raise AssertionError("the picture never rests")

    def assert_steady(self) -> None:
        """It is the element that it was, and was never blank."""
        assert self.image.get_attribute("data-same") == "yes"
        assert self.image.evaluate("image => image.blank") == 0


def drag(page: Any, start: tuple[float, float], by: tuple[float, float], steps: int = 24, pause_ms: int = 30) -> None:
    """Hold the mouse down at a place of the page and move it, in steps a hand would make."""
    page.mouse.move(*start)
    page.mouse.down()
    for step in range(1, steps + 1):
        page.mouse.move(start[0] + by[0] * step / steps, start[1] + by[1] * step / steps)
        page.wait_for_timeout(pause_ms)
    page.mouse.up()


def middle(locator: Any, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
    """A place in an element, by shares of its size."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]
