"""`colo demo`: the proxy at work in half a minute, to watch.

::

    page -> 200 MB download -> requests one by one -> the secondary answers with a wrong digit -> what compare reports
         -> the primary host dies during a download, which continues -> the numbers

Everything that is shown is measured in this run, and everything that is claimed is checked. Exit status 0 means that
every byte was right, that no checkpoint was wanted while the guests agreed, that the wrong digit was found at its
place, and that the client's connection survived the death of the primary.
"""

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from colo_lab.config import LabConfig
from colo_lab.lab import Lab
from colo_lab.programs.server import HEAD, statement
from colo_lab.report import failover
from colo_lab.table import LiveTable

SIZE: Final = 200_000_000
REQUESTS: Final = 500
LAST_SIZE: Final = 100_000_000
LAST_RATE: Final = 50_000_000
"""Bytes, and bytes a second, of the download during which the primary host dies."""
DEATH: Final = 1.0
"""The primary host dies this number of seconds after the start of that download."""
PYTHON: Final = f"exec {sys.executable} -P -m colo_lab.programs."

_MARKS: Final = {"running": ("▶", "bold cyan"), "ok": ("✔", "green"), "failed": ("✘", "bold red")}


def wrong_digit() -> int:
    """The offset of the wrong byte in the stream that the secondary answers with."""
    truth, lie = statement(), statement(err=True)
    at = next(i for i, (a, b) in enumerate(zip(truth, lie, strict=True)) if a != b)
    return len(HEAD % len(truth)) + at


@dataclass
class Scene:
    """One line of the programme."""

    title: str
    state: str = "running"
    text: str = ""

    def render(self) -> Text:
        """The line, with a mark for its state."""
        mark, style = _MARKS[self.state]
        return Text.assemble((f" {mark} ", style), self.title, "  ", (self.text, "bold"))


@dataclass
class Stage:
    """What is on the screen."""

    title: str
    scenes: list[Scene] = field(default_factory=list)
    bar: tuple[float, float] | None = None
    """Bytes compared, and how many there will be."""
    processes: RenderableType | None = None

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [scene.render() for scene in self.scenes]
        if self.bar is not None:
            done, total = self.bar
            progress = ProgressBar(total=total, completed=min(done, total), width=50)
            parts.append(Columns([progress, f"{done / 1e6:.0f} MB compared"]))
        if self.processes is not None:
            parts += [Text(""), self.processes]
        return Panel(Group(*parts), title=self.title, title_align="left", border_style="blue")


class Demo:
    """The programme. `run` returns the exit status."""

    def __init__(self, console: Console, wiring: str) -> None:
        self.console = console
        self.interrupted: Callable[[], int] = lambda: 0
        """Returns the number of the signal that has asked the demo to end, or 0."""
        self.lab = Lab(
            LabConfig(
                guest=PYTHON + "server",
                secondary_guest=PYTHON + "server --err",
                wiring=wiring,  # type: ignore[arg-type]
                start_timeout=60,
                extra={"frame": {"heartbeat-interval": "200"}, "frame-s": {"failover": "auto"}},
            )
        )
        self.table = LiveTable("")
        self.stage = Stage(f"colo demo · {wiring} wiring")
        self.failures: list[str] = []
        self.results: dict[str, dict[str, Any]] = {}

    # -- the programme ------------------------------------------------------------------------

    def run(self, on_up: Callable[[], None]) -> int:
        """All scenes, then the summary below the stage. `on_up` is called once the lab is up."""
        with self._shown():
            self._start()
            on_up()
            self._page()
            self._download()
            self._requests()
            report = self._lie()
            self._failover()
            self.stage.bar = None
        self.console.print(self._explained(report["compare"]))
        self.console.print(self._summary(report))
        for failure in self.failures:
            self.console.print(f"[bold red]✘ {failure}[/bold red]")
        if not self.failures:
            self.console.print("[bold green]✔ it all held[/bold green]")
        return 1 if self.failures else 0

    def _shown(self) -> contextlib.AbstractContextManager[object]:
        """On a terminal the stage is drawn again and again. Elsewhere each scene is one line once it has ended."""
        if self.console.is_terminal:
            return Live(self.stage, console=self.console, refresh_per_second=8, transient=False)
        self.console.print(self.stage.title)
        return contextlib.nullcontext()

    def _start(self) -> None:
        with self._scene("two hosts, two guests, a client: every filter a process") as scene:
            began = time.monotonic()
            self.lab.up()
            count = sum(1 for child in self.lab.supervisor.children.values() if child.role != "guest")
            scene.text = f"{count} processes up in {time.monotonic() - began:.1f} s"

    def _page(self) -> None:
        with self._scene("a web page") as scene:
            result = self._client("page", "--path", "/index")
            self._check(result["wrong"] == 0 and result["printed"] == "hello from /index\n", "the page is wrong")
            scene.text = f"“{result['printed'].strip()}” in {result['seconds'] * 1000:.0f} ms"

    def _download(self) -> None:
        with self._scene(f"a download of {SIZE // 1_000_000} MB, every byte checked") as scene:
            self.stage.bar = (0, SIZE)
            result = self._client("download", "--size", str(SIZE))
            self._check(result["wrong"] == 0, f"the download is wrong: {result['wrong']}")
            scene.text = f"{result.get('mbit_s', 0):,} Mbit/s, CRC {result.get('crc')} right"

    def _requests(self) -> None:
        with self._scene(f"{REQUESTS} requests, one after another") as scene:
            result = self._client("rr", "--count", str(REQUESTS))
            self._check(result["wrong"] == 0, f"{result['wrong']} requests went wrong")
            scene.text = f"median {result.get('p50_us', 0)} µs, 99 % under {result.get('p99_us', 0)} µs"
        wanted = self.lab.report()["compare"]["checkpoints_wanted"]
        self._check(not wanted, f"checkpoints wanted while the guests agreed: {wanted}")

    def _lie(self) -> dict[str, Any]:
        with self._scene("the secondary now answers with one wrong digit") as scene:
            result = self._client("page", "--path", "/statement")
            self._check(result["printed"].encode() == statement(), "the client did not get the primary's answer")
            # Not the final report: that one may remove the addresses, and another scene follows.
            report = self.lab.report()
            compare = report["compare"]
            last = _payload(compare)
            self._check(compare["miscompares"] >= 1 and bool(last), "the wrong digit was not found")
            place = wrong_digit()
            self._check(last.get("offset") == place, f"found at {last.get('offset')}, it is at {place}")
            self._check(compare["checkpoints_done"] >= 1, "no checkpoint was done")
            for name, verdict in report["invariants"].items():
                self._check(verdict != "violated", f"{name} violated: {report['invariants_why'][name]}")
            scene.text = f"found at byte {last.get('offset', '?')}, held, checkpoint, {result['seconds'] * 1000:.0f} ms"
            return report

    def _failover(self) -> None:
        with self._scene("the primary host dies in the middle of a download") as scene:
            self.lab.launcher.lan_watch()
            began = time.monotonic()

            def tick(now: float) -> None:
                if self.lab.failed_at is None and now - began >= DEATH:
                    self.lab.fail("host-p")
                self._tick(now)

            words = ("download", "--size", str(LAST_SIZE), "--rate", str(LAST_RATE))
            result = self._client(*words, on_tick=tick, name="failover")
            self.lab.processes()
            lan = self.lab.lan() or {}
            seen = failover(lan, self.lab.failed_at, self.lab.statuses.promotion()) or {}
            self._check(result["wrong"] == 0, f"the download was not right: {result['wrong']}")
            self._check(bool(seen.get("connections_continued")), "the connection did not continue")
            self._check(lan.get("broken") == [], f"it did not continue where it was: {lan.get('broken')}")
            self._check(lan.get("late") == 0, "both hosts wrote to the client LAN")
            result["detected_ms"] = seen.get("detected_ms")
            scene.text = (
                f"the secondary had the LAN after {seen.get('detected_ms')} ms, "
                f"a stall of {result.get('longest_stall', 0) * 1000:.0f} ms, CRC {result.get('crc')} right"
            )

    # -- helpers --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _scene(self, title: str) -> Iterator[Scene]:
        """Show a scene as running, and then as done or failed."""
        scene, failures_before = Scene(title, "running"), len(self.failures)
        self.stage.scenes.append(scene)
        try:
            yield scene
        except BaseException:
            scene.state = "failed"
            raise
        else:
            scene.state = "ok" if len(self.failures) == failures_before else "failed"
        finally:
            if not self.console.is_terminal:
                self.console.print(scene.render(), soft_wrap=True)

    def _check(self, right: bool, otherwise: str) -> None:
        if not right:
            self.failures.append(otherwise)

    def _client(
        self, *words: str, on_tick: Callable[[float], None] | None = None, name: str | None = None
    ) -> dict[str, Any]:
        """Run a job of the client program. Returns the line of JSON that it ends with, and what it printed before."""
        with tempfile.TemporaryFile() as out:
            status = self.lab.run_client(
                ["sh", "-c", PYTHON + 'client "$@"', "sh", *words],
                timeout=60,
                on_tick=on_tick or self._tick,
                interval=0.2,
                interrupted=self.interrupted,
                output=out.fileno(),
            )
            out.seek(0)
            printed, _, line = out.read().decode().rstrip("\n").rpartition("\n")
        try:
            result: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            result = {"wrong": f"the client ended with status {status}", "seconds": self.lab.seconds}
        result["printed"] = printed + "\n" if printed else ""
        self.results[name or words[0]] = result
        return result

    def _tick(self, _now: float) -> None:
        processes = self.lab.processes()
        self.stage.processes = self.table.draw(processes)
        if self.stage.bar is not None:
            done = sum(process.counters["bytes_compared"] for process in processes.values())
            self.stage.bar = (done, self.stage.bar[1])

    def _explained(self, compare: dict[str, Any]) -> RenderableType:
        last = _payload(compare)
        if not last:
            return Text("")
        rows = Table.grid(padding=(0, 3))
        rows.add_row("", Text("primary", style="bold"), Text("secondary", style="bold"))
        pair = [bytes.fromhex(str(last.get(side, ""))) for side in ("primary", "secondary")]
        first = int(last["offset"]) - int(last.get("context", 0))
        for start in range(0, max(map(len, pair)), 16):
            one, other = (data[start : start + 16] for data in pair)
            rows.add_row(Text(f"{first + start:8}", style="dim"), _dump(one, other), _dump(other, one))
        wanted = ", ".join(f"{n} of {reason}" for reason, n in compare["checkpoints_wanted"].items())
        text = Text.assemble(
            ("flow      ", "dim"), str(last.get("flow")), "\n",
            ("position  ", "dim"), f"byte {last.get('offset')} of the guest's stream", "\n",
            ("then      ", "dim"), f"held; checkpoint wanted ({wanted}); done, and the flow goes on unprotected",
        )  # fmt: skip
        return Panel(Group(text, Text(""), rows), title="miscompare, explained", title_align="left", border_style="red")

    def _summary(self, report: dict[str, Any]) -> RenderableType:
        compare = report["compare"]
        download, requests, last = (self.results.get(name, {}) for name in ("download", "rr", "failover"))
        released, dropped = compare["released"], sum(compare["dropped"].values())
        wanted, done = sum(compare["checkpoints_wanted"].values()), compare["checkpoints_done"]
        cpu = sum(p["cpu_seconds"] for p in report["processes"] if p["role"] not in ("guest", "client"))
        rows = {
            "throughput, one TCP download": f"{download.get('mbit_s', 0):,} Mbit/s",
            "latency, TCP request and answer": f"{requests.get('p50_us', 0)} µs median",
            "the primary host's death": f"seen after {last.get('detected_ms')} ms; "
            f"a stall of {last.get('longest_stall', 0):.2f} s in its download",
            "bytes compared": f"{compare['bytes_compared']:,}",
            "frames in / released / dropped": f"{compare['frames_primary']:,} / {released:,} / {dropped:,}",
            "checkpoints wanted / done": f"{wanted} / {done}",
            "invariants": ", ".join(f"{k} {v}" for k, v in report["invariants"].items() if v != "unknown"),
            "CPU of all filters": f"{cpu:.1f} s",
        }
        out = Table(title="what happened", title_justify="left", show_header=False)
        out.add_column(style="dim")
        out.add_column()
        for name, value in rows.items():
            out.add_row(name, value)
        return out


def _payload(compare: dict[str, Any]) -> dict[str, Any]:
    """The last miscompare of payload bytes, out of compare's report."""
    return next((one for one in reversed(compare["last"]) if one.get("reason") == "payload"), {})


def _dump(data: bytes, other: bytes) -> Text:
    """Up to sixteen bytes in hex and as text. Bytes that differ from the other side are red."""
    out, text = Text(), Text()
    for at, byte in enumerate(data):
        differs = data[at : at + 1] != other[at : at + 1]
        out.append(f"{byte:02x} ", style="bold red" if differs else "")
        text.append(chr(byte) if 32 <= byte < 127 else ".", style="bold red" if differs else "green")
    return out.append("   " * (16 - len(data)) + " ").append_text(text)
