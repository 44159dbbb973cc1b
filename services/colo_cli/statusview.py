"""`colo status`: the answer of a frame as a table.

The answer may come from another version of the frame: whatever it contains, something is shown.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from colo_cli.pairview import pair, verdict_line
from colo_cli.shown import items, mapping, plain
from colo_proto.errors import StartError
from colo_proto.messages import Query
from colo_runtime.client import request

SHOWN: Final = 5
"""Differences of each compare, and causes, that stand under the table; `--json` has all that the frame keeps."""
_NUMBERS: Final = ("in", "out", "dropped", "held")


def show(body: Mapping[str, Any]) -> None:
    """Print it once. The verdict is one line, however narrow the terminal is: programs read it, too."""
    console = Console()
    console.print(verdict_line(body), soft_wrap=True)
    console.print(_details(body))


def watch_it(where: str, timeout: float, *, as_json: bool) -> None:
    """Print it each second, until interrupted. While the frame does not answer, the table says so."""
    status = Query("status")
    if as_json:
        while True:
            sys.stdout.write(json.dumps(request(where, status, timeout), default=str) + "\n")
            sys.stdout.flush()
            time.sleep(1)
    with Live(Text("…"), auto_refresh=False, screen=False) as live:
        try:
            while True:
                try:
                    live.update(view(request(where, status, timeout)), refresh=True)
                except StartError as error:
                    live.update(Text(str(error), style="red"), refresh=True)
                time.sleep(1)
        except KeyboardInterrupt:
            return


def view(body: Mapping[str, Any]) -> Group:
    """The verdict, and everything else."""
    return Group(verdict_line(body), _details(body))


def _details(body: Mapping[str, Any]) -> Group:
    """Both sides of the pair, a row for each process, and what else the frame says."""
    scalars = {k: v for k, v in body.items() if isinstance(v, str | int | float | bool)}
    head = Text("  ").join(Text.assemble((plain(k), "dim"), " ", (plain(v), "bold")) for k, v in scalars.items())
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("id", "role", "state", "ready", *_NUMBERS, "waiting for"):
        table.add_column(name, justify="right" if name in _NUMBERS else "left")
    for one in _processes(body):
        counters, gauges, detail = (mapping(one.get(name)) for name in ("counters", "gauges", "status"))
        ready = detail.get("ready")
        cells = (
            one.get("id", "?"), one.get("role", "?"), one.get("state", ""),
            "yes" if ready is True else "no" if ready is False else "",
            _sum(counters, ".frames_in"), _sum(counters, ".frames_out"), _sum(counters, ".dropped"),
            gauges.get("held", ""), "; ".join(map(str, items(detail.get("waiting_for")))),
        )  # fmt: skip
        table.add_row(*(Text(plain(cell)) for cell in cells))
    return Group(
        *pair(body),
        head,
        *_shares(mapping(body.get("table"))),
        table,
        *_causes(body),
        *_differences(body),
    )


def _shares(shared: Mapping[str, Any]) -> Iterator[Text]:
    """`table 4  comp0 254  comp1 275 …`: version, slots of each worker, and which workers are moving or leaving."""
    if not shared.get("version"):
        return
    line = Text.assemble(("table ", "dim"), (str(shared["version"]), "bold"))
    for name, slots in sorted(mapping(shared.get("workers")).items()):
        line.append(f"  {plain(name)} ", "dim")
        line.append(plain(slots))
    for what in ("unsettled", "leaving"):
        if names := items(shared.get(what)):
            line.append(f"  {what}: {', '.join(map(plain, names))}", "yellow")
    yield line


def _causes(body: Mapping[str, Any]) -> Iterator[Text]:
    """The causes that ask for checkpoints repeatedly, and have to wait for the next one."""
    for one in map(mapping, items(mapping(body.get("checkpoint")).get("causes"))[:SHOWN]):
        if one.get("wait_ms"):
            words = f"{one.get('cause')}: {one.get('checkpoints')} checkpoints, the next one in {one['wait_ms']} ms"
            seen = f" (last: {one.get('reason')}, {one.get('flow')})" if one.get("flow") else ""
            yield Text(plain(words + seen), style="yellow")


def _differences(body: Mapping[str, Any]) -> Iterator[Text]:
    """The last differences of each compare: the place, and the bytes of both sides from there on."""
    for one in _processes(body):
        for seen in items(mapping(one.get("status")).get("last"))[-SHOWN:]:
            if isinstance(seen, dict):
                words = [f"{one.get('id', '?')}: {seen.get('reason')}, {seen.get('flow')}, at {seen.get('offset')}"]
                words += [f"{side} {_place(seen, side)}" for side in ("primary", "secondary") if seen.get(side)]
                words += [f"{name} {seen[name]}" for name in ("waits_for", "rule", "evidence") if seen.get(name)]
                yield Text(plain("; ".join(words)))


def _place(seen: Mapping[str, Any], side: str) -> str:
    """The bytes in hexadecimal, the first one that differs in brackets."""
    data = str(seen[side])
    before = seen.get("secondary_context" if side == "secondary" else "context")
    at = 2 * before if isinstance(before, int) else 0
    return f"{data[:at]}[{data[at : at + 2]}]{data[at + 2 :]}"


def _processes(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = items(body.get("processes"))
    return sorted((row for row in rows if isinstance(row, dict)), key=lambda row: str(row.get("id", "")))


def _sum(counters: Mapping[str, Any], suffix: str) -> str:
    # Frames that the kernel drops from a tap are counted by netdev alone.
    found = [n for name, n in counters.items() if name.startswith(("link.", "tap.")) and name.endswith(suffix)]
    values = [n for n in found if isinstance(n, int)]
    return str(sum(values)) if values else ""
