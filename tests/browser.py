"""A headless Chromium to look at pages with, driven through a pipe by its DevTools protocol."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
)
SECONDS = 60  # a start and a page may take
# A script: the least contrast of any text with its background.
CONTRAST = """(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(
    v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e)
    .backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return c; } return 'rgb(255,255,255)'; };
  return Math.min(...[...document.querySelectorAll('p, td, th, dt, dd, li, small, caption, h1, h2')]
    .filter(e => e.textContent.trim()).map(e => { const pair = [light(getComputedStyle(e).color),
    light(ground(e))].sort((a, b) => b - a); return (pair[0] + .05) / (pair[1] + .05); }));
})()"""


def browser_program() -> str | None:
    """The browser of `BROWSER_PROGRAM`, or one by a usual name."""
    named = os.environ.get("BROWSER_PROGRAM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab: what it loaded, what went wrong in it, and what its scripts say."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._number, self._rest = 0, b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command, and what comes back."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], SECONDS)[0]:
                raise AssertionError(f"the browser said nothing for {SECONDS} seconds")
            part = os.read(self._read, 1 << 16)
            if not part:
                raise AssertionError("the browser ended")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def show(self, file: Path, width: int, height: int = 900, scheme: str = "light") -> None:
        """Load a file in a window of a size, and wait until all of it is there."""
        self.events.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.send("Emulation.setDeviceMetricsOverride", **size, mobile=width < 600)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])
        self.send("Page.navigate", url=file.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, script: str) -> Any:
        """What an expression comes to."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    def requests(self) -> list[str]:
        """Addresses that were asked for beside the page itself; what the page holds is none."""
        sent = [e["params"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        urls = [request["request"]["url"] for request in sent if request["type"] != "Document"]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[dict[str, Any]]:
        """Exceptions, and all that was written to the console."""
        wrong = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in wrong]


@contextmanager
def open_page(program: str, profile: Path) -> Iterator[Page]:
    """Start a browser with an empty profile; yield its one tab, and end it."""
    from_us, to_us = os.pipe(), os.pipe()
    command = ["bash", "-c", 'exec "$@" 3<&"$IN" 4>&"$OUT"', "browser", program, *ARGUMENTS]
    ends = {"IN": str(from_us[0]), "OUT": str(to_us[1])}
    process = subprocess.Popen(
        [*command, f"--user-data-dir={profile}"],
        env=os.environ | ends,
        pass_fds=(from_us[0], to_us[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(from_us[0])
    os.close(to_us[1])
    try:
        yield Page(from_us[1], to_us[0])
    finally:
        os.close(from_us[1])
        os.close(to_us[0])
        process.terminate()
        process.wait(SECONDS)
