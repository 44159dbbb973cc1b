"""The live table of a lab, at the bottom of the terminal while the client writes above it.

The terminal's scroll region (DECSTBM) is made shorter, so what the client prints scrolls above the table and never
overwrites it. The client writes to the terminal itself, not through a pipe, so it behaves as without the lab. This is
why `rich.live` cannot be used here: it would have to see all that is printed.
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.console import Console, RenderableType
from rich.table import Table

from colo_lab.observed import Process, drops, frames

_SAVE, _RESTORE = "\x1b7", "\x1b8"


_HOSTS = {"host-p": "primary", "host-s": "secondary"}


def _leads(process: Process) -> bool:
    """True for a COLO frame that may write to the client LAN."""
    leadership = process.detail.get("leadership")
    return isinstance(leadership, dict) and leadership.get("writes") is True


class Footer:
    """Lines at the bottom of a terminal. `close` gives the terminal back."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._console = Console(file=out, force_terminal=True, color_system="standard", legacy_windows=False)
        self._lines = 0
        self._size = os.terminal_size((0, 0))

    def show(self, renderable: RenderableType) -> None:
        """Draw this in place of what was there before."""
        size = os.get_terminal_size(self._out.fileno())
        self._console.size = size
        with self._console.capture() as drawn:
            self._console.print(renderable)
        lines = drawn.get().rstrip("\n").split("\n")[: max(1, size.lines - 3)]
        count, text = len(lines), ""
        if (count, size) != (self._lines, self._size):
            # New lines push up what is on the screen. The scroll region then ends above the footer.
            text = "\n" * count + f"\x1b[{count}A" if count > self._lines else ""
            text += f"{_SAVE}\x1b[1;{size.lines - count}r{_RESTORE}"
            self._lines, self._size = count, size
        text += _SAVE
        for row, line in enumerate(lines, size.lines - count + 1):
            text += f"\x1b[{row};1H\x1b[2K{line}\x1b[0m"
        print(text + _RESTORE, end="", file=self._out, flush=True)

    def close(self) -> None:
        """Clear the lines and give the whole terminal back."""
        if self._lines:
            first = self._size.lines - self._lines + 1
            print(f"{_SAVE}\x1b[r\x1b[{first};1H\x1b[0J{_RESTORE}", end="", file=self._out, flush=True)
            self._lines = 0


class LiveTable:
    """The table, with a row for each process. Frames per second and the CPU share are those since it was last drawn."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._clock = clock
        self._at = clock()
        self._before: dict[str, tuple[int, float]] = {}

    def draw(self, processes: Mapping[str, Process]) -> Table:
        """The table now."""
        now = self._clock()
        elapsed, self._at = max(1e-3, now - self._at), now
        out = Table(title=self._title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        out.add_column("process")
        out.add_column("host")
        for name in ("frames", "frames/s", "held", "drops", "CPU", "MiB"):
            out.add_column(name, justify="right")
        for name, process in processes.items():
            if process.role in ("client", "guest"):
                continue
            count, cpu, lost = frames(process), process.usage.cpu_seconds, drops(process)
            had, spent = self._before.get(name, (count, cpu))
            self._before[name] = (count, cpu)
            out.add_row(
                f"{process.role} [bold]{name}[/bold]"
                + (f" [yellow]↻{process.restarts}[/yellow]" if process.restarts else ""),
                _HOSTS.get(process.host, process.host) + (", leads" if _leads(process) else ""),
                f"{count:,}",
                # A process that began anew has no negative rate.
                f"{max(0, count - had) / elapsed:,.0f}",
                f"{process.gauges['held']:,}",
                f"[red]{lost:,}[/red]" if lost else "0",
                f"{max(0.0, cpu - spent) / elapsed:4.0%}",
                f"{process.usage.max_rss_bytes >> 20}",
            )
        return out
