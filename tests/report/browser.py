"""A headless Chromium driven over its debugging pipe, with the standard library alone."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The browser speaks on handles 3 and 4; a small program moves ours there and becomes the browser.
AS_THREE_AND_FOUR = """
import fcntl, os, sys
for place, handle in zip((3, 4), [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]):
    os.dup2(handle, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 30.0  # seconds for an answer


def find() -> str | None:
    """The program, from $XLINGJAX_CHROMIUM or the path."""
    return os.environ.get("XLINGJAX_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab."""

    def __init__(self, reading: int, writing: int):
        self._reading, self._writing, self._held, self._last = reading, writing, b"", 0
        self.session = ""
        self.events: list[dict] = []

    def call(self, method: str, wait: bool = True, **params: Any) -> dict:
        """One command of the DevTools protocol and its result; `wait=False` only sends it."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        mine = self._last
        while wait:
            found = self._receive()
            if found.get("id") == mine:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]
        return {}

    def _receive(self, patience: float = PATIENCE) -> dict:
        until = time.monotonic() + patience
        while b"\0" not in self._held:
            ready, _, _ = select.select([self._reading], [], [], max(0, until - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            self._held += os.read(self._reading, 1 << 20)
        one, self._held = self._held.split(b"\0", 1)
        found = json.loads(one)
        if "method" in found:
            self.events.append(found)
        return found

    def wait_event(self, name: str) -> dict:
        """The next event of a name, or one that has come already."""
        while True:
            for place, event in enumerate(self.events):
                if event["method"] == name:
                    return self.events.pop(place)["params"]
            self._receive()

    def do(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def open(self, address: str) -> None:
        self.events = [event for event in self.events if event["method"] != "Page.loadEventFired"]
        self.call("Page.navigate", url=address)
        self.wait_event("Page.loadEventFired")

    def key(self, key: str, code: int = 0, text: str = "") -> None:
        """A key pressed and let go."""
        shared = {"key": key, "windowsVirtualKeyCode": code or ord(key[0].upper())}
        self.call("Input.dispatchKeyEvent", type="keyDown", **shared, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def opened(folder: Path, before: str = "") -> Iterator[Page]:
    """A tab of a browser of its own, whose profile and downloads lie in `folder`; `before` runs before any page."""
    program = find()
    assert program is not None
    (folder / "downloads").mkdir(parents=True, exist_ok=True)
    to_browser, from_browser = os.pipe(), os.pipe()
    flags = [
        "--headless=new",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder / 'profile'}",
        "--no-first-run",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--mute-audio",
        "--lang=en",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        "about:blank",
    ]
    ends = (to_browser[0], from_browser[1])
    process = subprocess.Popen(
        [sys.executable, "-c", AS_THREE_AND_FOUR, *map(str, ends), program, *flags],
        pass_fds=ends,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    page = Page(from_browser[0], to_browser[1])
    try:
        targets = page.call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "downloads"))
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page.call("Page.enable")
        if before:
            page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        yield page
        page.session = ""
        page.call("Browser.close")
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(from_browser[0])
        os.close(to_browser[1])
