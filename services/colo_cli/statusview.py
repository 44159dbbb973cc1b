"""`colo status`: the frame's answer as a table."""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from colo_proto.errors import StartError
from colo_proto.messages import Query
from colo_runtime.client import NoAnswerError, ask


def fetch(where: str, timeout: float) -> dict[str, Any]:
    """The frame's status. `StartError` when there is none."""
    try:
        answer = ask(where, Query("status"), timeout)
    except NoAnswerError as error:
        raise StartError(str(error)) from None
    if not answer.ok:
        raise StartError(f"{where}: {answer.error}")
    return answer.body


def show(body: Mapping[str, Any]) -> None:
    """Print it once."""
    Console().print(view(body))


def watch_it(where: str, timeout: float, *, as_json: bool) -> None:
    """Print it each second, until interrupted. A frame that is away for a while is said to be."""
    if as_json:
        while True:
            sys.stdout.write(json.dumps(fetch(where, timeout), default=str) + "\n")
            sys.stdout.flush()
            time.sleep(1)
    with Live(Text("…"), auto_refresh=False, screen=False) as live:
        try:
            while True:
                try:
                    live.update(view(fetch(where, timeout)), refresh=True)
                except StartError as error:
                    live.update(Text(str(error), style="red"), refresh=True)
                time.sleep(1)
        except KeyboardInterrupt:
            return


def view(body: Mapping[str, Any]) -> Group:
    """Head line, processes, and what else the frame says."""
    plain = {k: v for k, v in body.items() if isinstance(v, str | int | float | bool)}
    head = Text("  ").join(Text.assemble((_plain(k), "dim"), " ", (_plain(v), "bold")) for k, v in plain.items())
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("id", "role", "state", "ready", "in", "out", "dropped", "held", "waiting for"):
        table.add_column(name, justify="right" if name in ("in", "out", "dropped", "held") else "left")
    for one in _processes(body):
        counters, gauges, detail = (_map(one.get(name)) for name in ("counters", "gauges", "status"))
        waiting = detail.get("waiting_for")
        ready = detail.get("ready")
        cells = (
            one.get("id", "?"), one.get("role", "?"), one.get("state", ""),
            "yes" if ready is True else "no" if ready is False else "",
            _sum(counters, ".frames_in"), _sum(counters, ".frames_out"), _sum(counters, ".dropped"),
            gauges.get("held", ""), "; ".join(map(str, waiting)) if isinstance(waiting, list) else "",
        )  # fmt: skip
        table.add_row(*(Text(_plain(cell)) for cell in cells))
    shares = body.get("table")
    lines = [_shares(shares)] if isinstance(shares, dict) and shares.get("version") else []
    return Group(head, *lines, table, *_causes(body), *_differences(body))


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain(value: object) -> str:
    """Text that steers no terminal, and that is no markup: processes say what they like."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value))


def _shares(shared: Mapping[str, Any]) -> Text:
    """`table 4  comp0 254  comp1 275 …`: version, slots of each worker, and who is moving or leaving."""
    workers = shared.get("workers") or {}
    line = Text.assemble(("table ", "dim"), (str(shared["version"]), "bold"))
    for name, slots in sorted(workers.items()) if isinstance(workers, dict) else ():
        line.append(f"  {_plain(name)} ", "dim")
        line.append(_plain(slots))
    for what in ("unsettled", "leaving"):
        names = shared.get(what)
        if names and isinstance(names, list):
            line.append(f"  {what}: {', '.join(map(_plain, names))}", "yellow")
    return line


def _causes(body: Mapping[str, Any]) -> list[Text]:
    """Who asks for checkpoints again and again, and has to wait."""
    checkpoint = body.get("checkpoint")
    causes = checkpoint.get("causes") if isinstance(checkpoint, dict) else None
    lines = []
    for one in causes[:SHOWN] if isinstance(causes, list) else ():
        if isinstance(one, dict) and one.get("wait_ms"):
            words = f"{one.get('cause')}: {one.get('checkpoints')} checkpoints, the next one in {one['wait_ms']} ms"
            seen = f" (last: {one.get('reason')}, {one.get('flow')})" if one.get("flow") else ""
            lines.append(Text(_plain(words + seen), style="yellow"))
    return lines


SHOWN: Final = 5
"""Differences under the table; `--json` has all that compare keeps."""


def _differences(body: Mapping[str, Any]) -> list[Text]:
    """The last differences of each compare: where, and both sides' bytes from the place on."""
    lines = []
    for one in _processes(body):
        detail = one.get("status")
        found = detail.get("last") if isinstance(detail, dict) else None
        for seen in found[-SHOWN:] if isinstance(found, list) else ():
            if isinstance(seen, dict):
                words = [f"{one.get('id', '?')}: {seen.get('reason')}, {seen.get('flow')}, at {seen.get('offset')}"]
                words += [f"{side} {_place(seen, side)}" for side in ("primary", "secondary") if seen.get(side)]
                words += [f"{name} {seen[name]}" for name in ("waits_for", "rule", "evidence") if seen.get(name)]
                lines.append(Text(_plain("; ".join(words))))
    return lines


def _place(seen: Mapping[str, Any], side: str) -> str:
    """Hexadecimal, the first byte that differs in brackets."""
    data = str(seen[side])
    before = seen.get("secondary_context" if side == "secondary" else "context")
    at = 2 * before if isinstance(before, int) else 0
    return f"{data[:at]}[{data[at : at + 2]}]{data[at + 2 :]}"


def _processes(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = body.get("processes") or []
    rows = found.values() if isinstance(found, dict) else found
    return sorted((row for row in rows if isinstance(row, dict)), key=lambda row: str(row.get("id", "")))


def _sum(counters: Mapping[str, Any], suffix: str) -> str:
    # Of a tap only netdev counts what the kernel dropped.
    found = [n for name, n in counters.items() if name.startswith(("link.", "tap.")) and name.endswith(suffix)]
    values = [n for n in found if isinstance(n, int)]
    return str(sum(values)) if values else ""
