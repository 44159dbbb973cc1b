"""The live table of a lab, at the bottom of the terminal while the client writes above it.

The terminal's scroll region (DECSTBM) is made shorter, so what the client prints scrolls above the table and never
overwrites it. The client writes to the terminal itself, not through a pipe, so it behaves as without the lab. This is
why `rich.live` cannot be used here: it would have to see all that is printed.
"""

import io
import os
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.console import Console, RenderableType
from rich.table import Table

from colo_lab.observed import Process, drops, frames

_SAVE, _RESTORE = "\x1b7", "\x1b8"


class Footer:
    """Lines at the bottom of a terminal. `close` gives the terminal back."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lines = 0
        self._size = (0, 0)

    def show(self, renderable: RenderableType) -> None:
        """Draw this in place of what was there before."""
        columns, rows = os.get_terminal_size(self._out.fileno())
        buffer = io.StringIO()
        console = Console(
            file=buffer, width=columns, force_terminal=True, color_system="standard", legacy_windows=False
        )
        console.print(renderable)
        lines = buffer.getvalue().rstrip("\n").split("\n")[: max(1, rows - 3)]
        text = ""
        if len(lines) != self._lines or (columns, rows) != self._size:
            text += self._scroll_region(len(lines), rows)
            self._lines, self._size = len(lines), (columns, rows)
        text += _SAVE
        for number, line in enumerate(lines):
            text += f"\x1b[{rows - len(lines) + number + 1};1H\x1b[2K{line}\x1b[0m"
        self._write(text + _RESTORE)

    def close(self) -> None:
        """Clear the lines and give the whole terminal back."""
        if self._lines:
            rows = self._size[1]
            self._write(f"{_SAVE}\x1b[r{_RESTORE}{_SAVE}\x1b[{rows - self._lines + 1};1H\x1b[0J{_RESTORE}")
            self._lines = 0

    def _scroll_region(self, lines: int, rows: int) -> str:
        # New lines push up what is on the screen. The scroll region then ends above the footer.
        up = "\n" * lines + f"\x1b[{lines}A" if lines > self._lines else ""
        return up + f"{_SAVE}\x1b[1;{rows - lines}r{_RESTORE}"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


class Rates:
    """Frames per second and CPU share, between two calls of `look`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._before: dict[str, tuple[int, float]] = {}
        self.now: dict[str, tuple[float, float]] = {}
        """By id: frames per second, and CPU time as a share of one core."""

    def look(self, processes: Mapping[str, Process]) -> None:
        """Compute the rates since the last call from the counters of this moment."""
        now = self._clock()
        elapsed = max(1e-3, now - self._at)
        self._at = now
        for name, process in processes.items():
            count = frames(process)
            had, cpu = self._before.get(name, (count, process.usage.cpu_seconds))
            self._before[name] = (count, process.usage.cpu_seconds)
            self.now[name] = (max(0, count - had) / elapsed, max(0.0, process.usage.cpu_seconds - cpu) / elapsed)


def table(processes: Mapping[str, Process], rates: Rates, title: str) -> Table:
    """The table, with one row for each process."""
    out = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    out.add_column("process")
    out.add_column("host")
    for name in ("frames", "frames/s", "held", "drops", "CPU", "MiB"):
        out.add_column(name, justify="right")
    for name, process in processes.items():
        if process.role in ("client", "guest"):
            continue
        rate, cpu = rates.now.get(name, (0.0, 0.0))
        lost = drops(process)
        out.add_row(
            f"{process.role} [bold]{name}[/bold]"
            + (f" [yellow]↻{process.restarts}[/yellow]" if process.restarts else ""),
            {"host-p": "primary", "host-s": "secondary"}.get(process.host, process.host),
            f"{frames(process):,}",
            f"{rate:,.0f}",
            f"{process.gauges['held']:,}",
            f"[red]{lost:,}[/red]" if lost else "0",
            f"{cpu:4.0%}",
            f"{process.usage.max_rss_bytes >> 20}",
        )
    return out
