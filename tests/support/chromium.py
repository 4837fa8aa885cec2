"""A headless Chromium and what a person does in it, over its DevTools protocol through two pipes.

Goes to nowhere but this machine. One command at a time, each waited for: what a click leads to has
been loaded when the call returns. Knows no page and no story.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from broker.dev.rundir import RunDirectory

_PATIENCE_SECONDS: Final = 60.0
"""For a page, or for Chromium to start: a machine whose cores are taken lets it wait."""

_LONGEST_MESSAGE: Final = 1 << 24
"""Bytes. A screenshot comes in one."""

# Chromium reads commands from descriptor 3 and writes to 4, which are somebody's here.
_LAUNCH: Final = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""

_ARGUMENTS: Final = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which root has none of, and only our own pages are opened
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")

# The innermost element that says just that, or the field of that name.
_CENTRE: Final = """
(wanted => {
  const found = [...document.querySelectorAll('button, a, input, label')].find(each =>
    each.name === wanted || each.value === wanted || each.innerText?.trim() === wanted);
  if (!found) return null;
  found.scrollIntoView({block: 'center', behavior: 'instant'});
  const {x, y, width, height} = found.getBoundingClientRect();
  return [x + width / 2, y + height / 2];
})(%s)
"""


@dataclass(slots=True, kw_only=True)
class Wire:
    """The two pipes."""

    reader: asyncio.StreamReader
    writer: asyncio.WriteTransport
    sent: int = 0

    async def call(self, method: str, *, tab: str = "", **parameters: object) -> dict[str, Any]:
        """Has a command carried out, and returns what came of it."""
        self.sent += 1
        command = {"id": self.sent, "method": method, "params": parameters}
        addressed = {**command, "sessionId": tab} if tab else command
        self.writer.write(json.dumps(addressed).encode() + b"\0")
        answer = await self.next(lambda each: each.get("id") == self.sent)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    async def next(self, is_wanted: Any) -> dict[str, Any]:  # noqa: ANN401 - of a JSON message
        """Reads until the message that is wanted; the others told of what nobody waits for."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                message = json.loads((await self.reader.readuntil(b"\0"))[:-1])
                if is_wanted(message):
                    return dict(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """One person's browser: a window with cookies of its own."""

    wire: Wire
    session: str = field(repr=False)

    async def opens(self, address: str) -> None:
        """Opens an address."""
        await self._call("Page.navigate", url=address)
        await self._loaded()

    async def reloads(self) -> None:
        """Opens the same address again."""
        await self._call("Page.reload")
        await self._loaded()

    async def clicks(self, wanted: str, *, leads_on: bool = True) -> None:
        """Clicks what has this text, name or value; `leads_on`: to another page."""
        centre = await self.says(_CENTRE % json.dumps(wanted))
        assert centre is not None, f"nothing here says {wanted!r}: {await self.text()}"
        for kind in ("mousePressed", "mouseReleased"):
            await self._call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=centre[0],
                y=centre[1],
                button="left",
                clickCount=1,
            )
        if leads_on:
            await self._loaded()

    async def types(self, text: str, *, into: str) -> None:
        """Types into the field of a name."""
        await self.clicks(into, leads_on=False)
        await self._call("Input.insertText", text=text)

    async def heading(self) -> str:
        """What the page is called."""
        return str(await self.says("document.querySelector('h1').innerText"))

    async def text(self) -> str:
        """What a person reads."""
        return " ".join(str(await self.says("document.body.innerText")).split())

    async def address(self) -> str:
        """Where it is."""
        return str(await self.says("location.href"))

    async def says(self, expression: str) -> Any:  # noqa: ANN401 - whatever JavaScript has
        """Asks the page."""
        told = await self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def is_as_wide_as(self, width: int) -> None:
        """Makes the window as wide as a phone, or a desk."""
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        await self._call("Emulation.setDeviceMetricsOverride", **metrics)

    async def draws(self, path: Path) -> None:
        """Keeps a picture of the page."""
        told = await self._call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(told["data"]))

    async def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        return await self.wire.call(method, tab=self.session, **parameters)

    async def _loaded(self) -> None:
        loaded = ("Page.loadEventFired", self.session)
        await self.wire.next(lambda each: (each.get("method"), each.get("sessionId")) == loaded)


async def tab_of(wire: Wire) -> Tab:
    """Opens a window that shares nothing with the others."""
    context = (await wire.call("Target.createBrowserContext"))["browserContextId"]
    target = await wire.call("Target.createTarget", url="about:blank", browserContextId=context)
    attached = await wire.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
    tab = Tab(wire=wire, session=attached["sessionId"])
    await wire.call("Page.enable", tab=tab.session)
    return tab


def found_chromium(path: str | None = None) -> str:
    """Returns where it is, or skips the test; `path`: the folders to look in, else PATH's."""
    for name in _NAMES:
        program = shutil.which(name, path=path)
        if program is not None:
            return program
    pytest.skip("there is no Chromium on this machine")


@asynccontextmanager
async def chromium(run: RunDirectory) -> AsyncIterator[Wire]:
    """Runs a Chromium as long as the block runs; it keeps what it keeps in the run's directory."""
    program, profile = found_chromium(), run.path / "chromium"
    commands_in, commands = os.pipe()
    answers, answers_out = os.pipe()
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _LAUNCH, str(commands_in), str(answers_out)),
        *(program, *_ARGUMENTS, f"--user-data-dir={profile}", "about:blank"),
        pass_fds=(commands_in, answers_out),
        env={**os.environ, "HOME": str(profile), "XDG_CONFIG_HOME": str(profile)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    run.started(started.pid)
    os.close(commands_in)
    os.close(answers_out)
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=_LONGEST_MESSAGE)
    reading, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(answers, "rb")
    )
    writer, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(commands, "wb"))
    try:
        yield Wire(reader=reader, writer=writer)
    finally:
        writer.close()
        reading.close()
        # Its helpers too, which are of its process group.
        os.killpg(started.pid, signal.SIGKILL)
        await started.wait()
