"""`colo demo`: the proxy at work in half a minute, to watch.

::

    page -> 200 MB download -> requests one by one -> the secondary lies -> what compare says
         -> the primary host dies in the middle of a download, which goes on -> the numbers

All that is shown is measured in this run, and all that is claimed is checked. Exit status 0 means that every byte was
right, that nothing asked for a checkpoint while the guests agreed, that the one wrong digit was found at its place, and
that the client's connection outlived the primary.
"""

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
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
from colo_lab.programs.server import statement
from colo_lab.report import failover
from colo_lab.table import Rates, table

SIZE: Final = 200_000_000
REQUESTS: Final = 500
LAST_SIZE: Final = 100_000_000
LAST_RATE: Final = 50_000_000
"""Bytes, and bytes a second, of the download during which the primary host dies."""
DEATH: Final = 1.0
"""The primary host dies so many seconds after the start of that download."""
PYTHON: Final = f"exec {sys.executable} -P -m colo_lab.programs."

_HEAD = "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n"


def wrong_digit() -> int:
    """Where in the answer's stream the lying guest's byte stands."""
    truth, lie = statement(), statement(err=True)
    at = next(i for i, (a, b) in enumerate(zip(truth, lie, strict=True)) if a != b)
    return len(_HEAD.format(len(truth))) + at


@dataclass
class Scene:
    """One line of the programme."""

    title: str
    state: str = "waiting"
    text: str = ""

    def render(self) -> Text:
        """The line, with a mark for its state."""
        mark, style = {
            "waiting": ("·", "dim"),
            "running": ("▶", "bold cyan"),
            "ok": ("✔", "green"),
            "failed": ("✘", "bold red"),
        }[self.state]
        return Text.assemble(
            (f" {mark} ", style), (self.title, "" if self.state != "waiting" else "dim"), "  ", (self.text, "bold")
        )


@dataclass
class Stage:
    """What is on the screen."""

    title: str
    scenes: list[Scene] = field(default_factory=list)
    bar: tuple[float, float] | None = None
    processes: RenderableType | None = None
    extra: list[RenderableType] = field(default_factory=list)

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [scene.render() for scene in self.scenes]
        if self.bar is not None:
            done, total = self.bar
            parts.append(
                Columns(
                    [ProgressBar(total=total, completed=min(done, total), width=50), f"{done / 1e6:.0f} MB compared"]
                )
            )
        if self.processes is not None:
            parts += [Text(""), self.processes]
        parts += self.extra
        return Panel(Group(*parts), title=self.title, title_align="left", border_style="blue")


class Demo:
    """The programme. `run` gives the exit status."""

    def __init__(self, console: Console, wiring: str, *, interrupted: Callable[[], int] = lambda: 0) -> None:
        self.console = console
        self.interrupted = interrupted
        self.lab = Lab(
            LabConfig(
                guest=PYTHON + "server",
                secondary_guest=PYTHON + "server --err",
                wiring=wiring,  # type: ignore[arg-type]
                start_timeout=60,
                extra={"frame": {"heartbeat-interval": "200"}, "frame-s": {"failover": "auto"}},
            )
        )
        self.rates = Rates()
        self.stage = Stage(f"colo demo · {wiring} wiring")
        self.failures: list[str] = []
        self.results: dict[str, dict[str, Any]] = {}

    # -- the programme ------------------------------------------------------------------------

    def run(self, on_up: Callable[[], None] = lambda: None) -> int:
        """All scenes, then the summary below the stage. `on_up` is called once the lab is up."""
        report: dict[str, Any] = {}
        with self._shown():
            self._start()
            on_up()
            if not self.failures:
                self._page()
                self._download()
                self._requests()
                self._agreement()
                report = self._lie()
                self._failover()
                self.stage.bar = None
        if report:
            self.console.print(self._explained(report))
            self.console.print(self._summary(report))
        for failure in self.failures:
            self.console.print(f"[bold red]✘ {failure}[/bold red]")
        if not self.failures:
            self.console.print("[bold green]✔ it all held[/bold green]")
        return 1 if self.failures else 0

    def _shown(self) -> contextlib.AbstractContextManager[object]:
        """On a terminal the stage is drawn again and again; elsewhere each scene is a line once it is over."""
        if self.console.is_terminal:
            return Live(self.stage, console=self.console, refresh_per_second=8, transient=False)
        self.console.print(self.stage.title)
        return contextlib.nullcontext()

    def _start(self) -> None:
        with self._scene("two hosts, two guests, a client: every filter a process") as scene:
            began = time.monotonic()
            self.lab.up()
            count = sum(1 for child in self.lab.crew.children.values() if child.role != "guest")
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

    def _agreement(self) -> None:
        wanted = self._totals()["checkpoints_wanted"]
        self._check(not wanted, f"checkpoints wanted while the guests agreed: {wanted}")

    def _lie(self) -> dict[str, Any]:
        with self._scene("the secondary now answers with one wrong digit") as scene:
            result = self._client("page", "--path", "/statement")
            got = result["printed"].encode()
            self._check(got == statement(), "the client did not get the primary's answer")
            # Not the final report: that one may silence everybody, and there is more to come.
            report = self.lab.report()
            compare = report["compare"]
            last = _payload(compare["last"])
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
            self.lab.start_lan_watch()
            began, dead = time.monotonic(), False

            def tick(now: float) -> None:
                nonlocal dead
                if not dead and now - began >= DEATH:
                    dead = True
                    self.lab.fail("host-p")
                self._tick(now)

            words = ("download", "--size", str(LAST_SIZE), "--rate", str(LAST_RATE))
            result = self._client(*words, on_tick=tick, name="failover")
            self.lab.processes()
            lan = self.lab.lan() or {}
            seen = failover(lan, self.lab.failed_at, self.lab.promotion()) or {}
            self._check(result["wrong"] == 0, f"the download was not right: {result['wrong']}")
            self._check(bool(seen.get("connections_continued")), "the connection did not go on")
            self._check(lan.get("broken") == [], f"it did not go on where it was: {lan.get('broken')}")
            self._check(lan.get("late") == 0, "both hosts wrote to the client LAN")
            result["detected_ms"] = seen.get("detected_ms")
            scene.text = (
                f"the secondary had the LAN after {seen.get('detected_ms')} ms, "
                f"a stall of {result.get('longest_stall', 0) * 1000:.0f} ms, CRC {result.get('crc')} right"
            )

    # -- helpers --------------------------------------------------------------------------------

    def _scene(self, title: str) -> "_Scene":
        return _Scene(self, Scene(title))

    def _check(self, right: bool, otherwise: str) -> None:
        if not right:
            self.failures.append(otherwise)

    def _client(
        self, *words: str, on_tick: Callable[[float], None] | None = None, name: str | None = None
    ) -> dict[str, Any]:
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
        self.rates.look(processes)
        self.stage.processes = table(processes, self.rates, "")
        if self.stage.bar is not None:
            done = sum(p.status.counters.get("bytes_compared", 0) for p in processes.values() if p.status)
            self.stage.bar = (done, self.stage.bar[1])

    def _totals(self) -> dict[str, Any]:
        compare: dict[str, Any] = self.lab.report()["compare"]
        return compare

    def _explained(self, report: dict[str, Any]) -> RenderableType:
        last = _payload(report["compare"]["last"])
        if not last:
            return Text("")
        before = int(last.get("context", 0))
        rows = Table.grid(padding=(0, 3))
        rows.add_row("", Text("primary", style="bold"), Text("secondary", style="bold"))
        pair = [bytes.fromhex(str(last.get(side, ""))) for side in ("primary", "secondary")]
        for start in range(0, max(map(len, pair)), 16):
            rows.add_row(
                Text(f"{int(last['offset']) - before + start:8}", style="dim"),
                *(_dump(a, b, start) for a, b in (pair, pair[::-1])),
            )
        wanted = ", ".join(f"{n} of {reason}" for reason, n in report["compare"]["checkpoints_wanted"].items())
        text = Text.assemble(
            ("flow      ", "dim"), str(last.get("flow")), "\n",
            ("position  ", "dim"), f"byte {last.get('offset')} of the guest's stream", "\n",
            ("then      ", "dim"), f"held; checkpoint wanted ({wanted}); done, and the flow goes on unprotected",
        )  # fmt: skip
        return Panel(Group(text, Text(""), rows), title="miscompare, explained", title_align="left", border_style="red")

    def _summary(self, report: dict[str, Any]) -> RenderableType:
        compare = report["compare"]
        out = Table(title="what happened", title_justify="left", show_header=False)
        out.add_column(style="dim")
        out.add_column()
        download, requests = self.results.get("download", {}), self.results.get("rr", {})
        out.add_row("throughput, one TCP download", f"{download.get('mbit_s', 0):,} Mbit/s")
        out.add_row("latency, TCP request and answer", f"{requests.get('p50_us', 0)} µs median")
        last = self.results.get("failover", {})
        out.add_row(
            "the primary host's death",
            f"seen after {last.get('detected_ms')} ms; a stall of {last.get('longest_stall', 0):.2f} s in its download",
        )
        out.add_row("bytes compared", f"{compare['bytes_compared']:,}")
        out.add_row(
            "frames in / released / dropped",
            f"{compare['frames_primary']:,} / {compare['released']:,} / {sum(compare['dropped'].values()):,}",
        )
        out.add_row(
            "checkpoints wanted / done",
            f"{sum(compare['checkpoints_wanted'].values())} / {compare['checkpoints_done']}",
        )
        out.add_row("invariants", ", ".join(f"{k} {v}" for k, v in report["invariants"].items() if v != "unknown"))
        cpu = sum(p["cpu_seconds"] for p in report["processes"] if p["role"] not in ("guest", "client"))
        out.add_row("CPU of all filters", f"{cpu:.1f} s")
        return out


class _Scene:
    """Marks a scene as running, then as done or failed."""

    def __init__(self, demo: Demo, scene: Scene) -> None:
        self.demo = demo
        self.scene = scene

    def __enter__(self) -> Scene:
        self.before = len(self.demo.failures)
        self.scene.state = "running"
        self.demo.stage.scenes.append(self.scene)
        return self.scene

    def __exit__(self, *error: object) -> None:
        failed = error[0] is not None or len(self.demo.failures) > self.before
        self.scene.state = "failed" if failed else "ok"
        if not self.demo.console.is_terminal:
            self.demo.console.print(self.scene.render(), soft_wrap=True)


def _payload(last: list[dict[str, Any]]) -> dict[str, Any]:
    """The last miscompare of bytes."""
    found = [one for one in last if one.get("reason") == "payload"]
    return found[-1] if found else {}


def _dump(data: bytes, other: bytes, start: int) -> Text:
    """Sixteen bytes in hex and as text; what differs from the other side stands out."""
    out = Text()
    chunk = data[start : start + 16]
    for i, byte in enumerate(chunk):
        out.append(
            f"{byte:02x} ",
            style="bold red" if data[start + i : start + i + 1] != other[start + i : start + i + 1] else "",
        )
    out.append("   " * (16 - len(chunk)) + " ")
    for i, byte in enumerate(chunk):
        differs = data[start + i : start + i + 1] != other[start + i : start + i + 1]
        out.append(chr(byte) if 32 <= byte < 127 else ".", style="bold red" if differs else "green")
    return out
