"""The head of `colo status`: the verdict on the pair, both of its sides, and what happened to it last.

What a frame answers may come from another version, and from the other host: whatever it contains, something is shown.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from colo_cli.shown import items, mapping, plain
from colo_frame.transitions import role_of
from colo_frame.verdict import DEGRADED, NUMBERS, PROTECTED, UNPROTECTED

COLOURS: Final = {PROTECTED: "green", DEGRADED: "yellow", UNPROTECTED: "red"}
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 24 * 60 * _MINUTE_MS
_COLUMNS: Final = ("side", "frame", "LAN", "state", "token", "mode", "processes", "heard")


def exit_status(body: Mapping[str, Any]) -> int:
    """The exit status of `colo status`: 0 protected, 3 degraded, 4 unprotected. A frame that gives no verdict does not
    say that its pair is protected.
    """
    return NUMBERS.get(_level(body), NUMBERS[UNPROTECTED])


def _level(body: Mapping[str, Any]) -> str:
    return str(mapping(body.get("verdict")).get("level"))


def verdict_line(body: Mapping[str, Any]) -> Text:
    """`degraded (3 of 40 connections unprotected since 12:01, payload); the client LAN is at the primary`."""
    said, level = mapping(body.get("verdict")), _level(body)
    if level not in NUMBERS:
        return Text("this frame gives no verdict on the pair", style="red")
    causes = "; ".join(_cause(one) for one in map(mapping, items(said.get("causes"))))
    text = Text(f"{level} ({plain(causes)})" if causes else level, style=f"bold {COLOURS[level]}")
    lan = plain(said.get("lan", "unknown"))
    place = {"nobody": "nobody writes to the client LAN", "unknown": "it is not known who writes to the client LAN"}
    return text.append(f"; {place.get(lan, f'the client LAN is at the {lan}')}", "not bold default")


def _cause(cause: Mapping[str, Any]) -> str:
    words = [str(cause.get("text")), _since(cause.get("age_ms"))]
    return ", ".join(filter(None, (" ".join(filter(None, words)), str(cause.get("detail") or ""))))


def _since(age: object) -> str:
    """`for 3 s`, or the time of the day once it is longer than a minute."""
    if type(age) is not int or not 0 <= age < 1 << 53:
        return ""
    if age < _MINUTE_MS:
        return f"for {age // 1000} s"
    return time.strftime("since %H:%M" if age < _DAY_MS else "since %Y-%m-%d %H:%M", time.localtime(_then(age)))


def _when(age: object) -> str:
    """`3 s ago`, or the time of the day once it is longer than a minute."""
    since = _since(age)
    return f"{since.removeprefix('for ')} ago" if since.startswith("for ") else since.replace("since ", "at ")


def _then(age_ms: int) -> float:
    return max(time.time() - age_ms / 1000, 0.0)


def pair(body: Mapping[str, Any]) -> Iterator[Text | Table]:
    """Both sides as a table; then the last failover, the last checkpoint, and the connections."""
    leadership, peer = mapping(body.get("leadership")), mapping(body.get("peer"))
    if not leadership:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in _COLUMNS:
        table.add_column(name)
    lost = [one.get("id") for one in map(mapping, items(body.get("processes"))) if one.get("state") == "lost"]
    gauges = mapping(body.get("gauges"))
    state = f"{leadership.get('state')} {_since(leadership.get('since_ms'))}"
    changing = "role" in leadership
    host = _host(body.get("side"), leadership.get("state"), changing=changing)
    _row(
        table, host, body.get("id"), _writes(leadership.get("writes")), state, body.get("fence"),
        body.get("mode"), _processes(gauges.get("processes"), lost), "here",
    )  # fmt: skip
    if "role" in peer:
        state = f"{peer.get('leadership')} {_since(peer.get('peer_since_ms'))}"
        heard = f"{'' if peer.get('alive') is True else 'lost, '}{_ago(peer.get('age_ms'))}"
        host = _host(peer.get("role"), peer.get("leadership"), changing=changing)
        _row(
            table, host, peer.get("peer_id"), _writes(peer.get("writes")), state, peer.get("fence"),
            peer.get("mode"), _processes(peer.get("peer_processes"), items(peer.get("peer_processes_lost"))),
            heard,
        )  # fmt: skip
    yield table
    yield from _last(body, peer, leadership)


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(Text(plain("" if cell is None else cell)) for cell in cells))


def _host(side: object, state: object, *, changing: bool) -> object:
    """The name of a host, with its role where roles change."""
    return f"{side} ({role_of(str(state))})" if changing else side


def _writes(writes: object) -> str:
    return "writes" if writes is True else "-"


def _processes(live: object, lost: list[Any]) -> str:
    return f"{live}, lost: {', '.join(map(str, lost))}" if lost else str(live)


def _ago(age: object) -> str:
    return f"{age / 1000:.1f} s" if isinstance(age, int) else ""


def _last(body: Mapping[str, Any], peer: Mapping[str, Any], leadership: Mapping[str, Any]) -> Iterator[Text]:
    takeover = mapping(leadership.get("takeover"))
    words = f"to the {takeover.get('side')} {_when(takeover.get('age_ms'))}" if takeover else "none"
    yield _line("last failover", words)
    # The primary's frame makes checkpoints, and its compares know the connections; it tells the secondary of both.
    told = leadership.get("role", "standby" if body.get("side") == "secondary" else "leader") == "standby"
    checkpoint = mapping(peer.get("peer_checkpoint") if told else mapping(body.get("checkpoint")).get("last"))
    flow = f", {checkpoint.get('flow')}" if checkpoint.get("flow") else ""
    cause = f"epoch {checkpoint.get('epoch')} {_when(checkpoint.get('age_ms'))}, {checkpoint.get('reason')}{flow}"
    yield _line("last checkpoint", cause if checkpoint else "none")
    flows = mapping(peer.get("peer_flows") if told else body.get("flows"))
    words = f"{flows.get('open')} open, {flows.get('unprotected')} unprotected"
    if flows.get("unprotected"):
        words += f" {_since(flows.get('since_ms'))}, {flows.get('reason')}"
    yield _line("connections", words if flows else "unknown")


def _line(name: str, words: str) -> Text:
    return Text.assemble((f"{name} ", "dim"), plain(words))
