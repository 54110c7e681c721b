"""A headless Chromium, controlled by the W3C WebDriver protocol. A few JSON requests need no library."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAMS = ("chromium", "chromedriver")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
PATIENCE = 120  # seconds that a browser may take to start on a busy machine


class Browser:
    """A context manager: one browser window of this size in pixels."""

    def __init__(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]
        flags.append("--enable-unsafe-swiftshader")  # WebGL in software, for pages that request it
        if dark:
            flags.append("--blink-settings=preferredColorScheme=0")
        phone = {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}}  # windows are at least 500 wide
        chrome = {"binary": shutil.which("chromium"), "args": flags, "mobileEmulation": phone}
        self.wanted = {"browserName": "chrome", "goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = ""

    def __enter__(self) -> Browser:
        command = ["chromedriver", f"--port={self.port}"]
        self.driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self._ready():
            assert time.monotonic() < deadline and self.driver.poll() is None, "chromedriver did not start"
            time.sleep(0.1)
        found = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": self.wanted}})
        self.session = f"/session/{found['sessionId']}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if self.session:
                self._ask("DELETE", self.session)
        finally:
            self.driver.terminate()
            self.driver.wait()

    def open(self, page: Path | str) -> None:
        """Open a file or an address."""
        address = page if isinstance(page, str) else page.resolve().as_uri()
        self._ask("POST", f"{self.session}/url", {"url": address})

    def run(self, script: str) -> Any:
        """Run a script and return its result."""
        return self._ask("POST", f"{self.session}/execute/sync", {"script": script, "args": []})

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Put a finger on the page, move it in four steps, and lift it. Points are pixels (x, y) of the window."""
        steps = [{"type": "pointerMove", "duration": 0, "x": start[0], "y": start[1]}, {"type": "pointerDown", "button": 0}]
        for k in range(1, 5):
            x, y = (round(a + (b - a) * k / 4) for a, b in zip(start, end, strict=True))
            steps.append({"type": "pointerMove", "duration": 20, "x": x, "y": y})
        steps.append({"type": "pointerUp", "button": 0})
        finger = {"type": "pointer", "id": "finger", "parameters": {"pointerType": "touch"}, "actions": steps}
        self._ask("POST", f"{self.session}/actions", {"actions": [finger]})

    def console(self) -> list[str]:
        """Return the console messages since the last call."""
        return [entry["message"] for entry in self._ask("POST", f"{self.session}/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", f"{self.session}/screenshot")))

    def _ready(self) -> bool:
        try:
            return bool(self._ask("GET", "/status")["ready"])
        except (urllib.error.URLError, ConnectionError):
            return False

    def _ask(self, method: str, path: str, data: dict[str, Any] | None = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["value"]
