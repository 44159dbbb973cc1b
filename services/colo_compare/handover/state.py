"""The state of flows as bytes: everything that is known of them, and what they hold.

::

    pack(table, chosen) ---- bytes ----> unpack(table)         taken out of the source, put into the target

The frames that the source has handled and those that the target will handle are then one sequence, as if a single
worker had had them. Only history (bytes found equal long ago, kept for retransmissions) is cut short.

Accounts move with the frames: `handed_over` and `taken_over` count the primary's, `secondary_handed_over` and
`secondary_taken_over` the secondary's. Times are sent as ages. The format is msgpack, with names beside the values so
that workers of two versions understand each other: unknown names are skipped, and a flow that cannot be read is left
out and counted.
"""

from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any, Final, cast

import msgpack

from colo_compare.arrival import Arrival
from colo_compare.datagram import GRACE, DatagramFlow, HeldDatagram, secondary_cost
from colo_compare.exempt import CAUSE
from colo_compare.flow import Flow
from colo_compare.table import TCP_KEY, Table
from colo_compare.tcp.flow import TcpFlow
from colo_compare.tcp.history import cost
from colo_compare.tcp.partial import HEAD_WAIT
from colo_compare.tcp.reference import LOWEST, Reference
from colo_compare.tcp.state import Held, LoweredWindow, NextSyn
from colo_compare.unit import HeldUnit, Unit, frames_in, frames_of
from colo_proto.errors import WireError
from colo_proto.net.stamp import NO_STAMP
from colo_proto.net.tcp import SynOptions

HISTORY: Final = 64 * 1024
"""Bytes of history that go along: what is in flight between a guest and its client may be sent again."""

_FLAGS = "adopted", "closed", "diverged", "opener", "s_rst", "unprotected"
_NUMBERS = (
    "ack_base", "client_reset", "committed", "edge", "head_end", "mask_end", "mask_start", "origin", "p_ack", "p_fin",
    "p_scale", "p_top", "p_win", "p_wire_ack", "repeated_at", "s_ack", "s_edge", "s_isn", "s_last_ack", "s_plain",
    "s_reset", "s_scale", "s_top", "s_win", "s_wire_ack", "stamp", "stamp_until", "unproven",
)  # fmt: skip
FIELDS: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(_FLAGS, (bool,)),
    **dict.fromkeys(_NUMBERS, (int,)),
    **dict.fromkeys(("isn", "p_first", "s_first"), (int, NoneType)),
    "advanced_at": (float,),
}
"""Fields of a stream that are sent as they are, and the types that each may have."""
LATER: Final = {
    **dict.fromkeys(
        ("client_reset", "edge", "head_end", "p_fin", "repeated_at", "s_reset", "s_top", "stamp_until"), LOWEST
    ),
    "stamp": NO_STAMP,
}  # fmt: skip
"""Fields that a worker of an older version does not send, and what they are then."""

Chosen = Callable[[bytes], bool]
"""Is the flow with this key handed over?"""


def pack(table: Table, chosen: Chosen, now: float) -> bytes:
    """Take the chosen flows, and the fragments of their unfinished datagrams, out of `table`."""
    ledger = table.ledger
    flows = []
    for key, flow in list(table.flows.items()):
        if not chosen(key):
            continue
        if flow.kept == TcpFlow.kept:
            flows.append(_pack_stream(cast("TcpFlow", flow), now))
        elif flow.kept == DatagramFlow.kept:
            flows.append(_pack_datagrams(cast("DatagramFlow", flow), now))
        table.remove(flow)
    fragments: list[list[Any]] = [[], []]
    for side, assembler in enumerate(table.fragments):
        for began, frames in assembler.extract(chosen):
            fragments[side].append([now - began, [bytes(frame) for frame in frames]])
            if side:
                ledger.secondary_handed_over(len(frames), 0)
            elif not ledger.shadow:
                ledger.held -= len(frames)
                ledger.counters["handed_over"] += len(frames)
    ledger.counters["flows_handed_over"] += len(flows)
    packed: bytes = msgpack.packb([flows, fragments], use_bin_type=True)
    return packed


def unpack(table: Table, data: bytes, now: float) -> None:
    """Put what `pack` returned into `table`; `WireError` when nothing can be read."""
    try:
        flows, fragments = msgpack.unpackb(data, raw=False, strict_map_key=False)
        primary, secondary = ([(now - age, list(frames)) for age, frames in side] for side in fragments)
        if type(flows) is not list or any(type(one) is not bytes for _, side in primary + secondary for one in side):
            raise WireError("flow_state", "not flows, and frames of unfinished datagrams")
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise WireError("flow_state", str(error)[:120]) from None
    counters = table.ledger.counters
    for body in flows:
        try:
            (_unpack_stream if body["kind"] == TcpFlow.kept else _unpack_datagrams)(table, body, now)
            counters["flows_taken_over"] += 1
        except (KeyError, ValueError, TypeError, IndexError, OverflowError):
            counters["handovers_malformed"] += 1
    for is_primary, side in ((True, primary), (False, secondary)):
        for began, frames in side:
            for frame in frames:
                if not is_primary:
                    counters["secondary_taken_over"] += 1
                elif not table.ledger.shadow:
                    counters["taken_over"] += 1
                table.receive_any(frame, began, primary=is_primary)


# -- flows of either kind ----------------------------------------------------------------------------


def _pack_flow(flow: TcpFlow | DatagramFlow, now: float) -> dict[str, Any]:
    return {
        "kind": flow.kept,
        "key": flow.key,
        "idle": now - flow.touched,
        "wanted": now - flow.wanted if flow.wanted else None,
        "diverged": flow.diverged,
        "unprotected": flow.unprotected,
        "unjudged": flow.key in flow.ledger.unjudged,
    }


def _unpack_flow(
    table: Table, body: dict[str, Any], kept: str, held: Iterable[HeldUnit], pending: int, now: float
) -> Flow | None:
    """The flow in `table` that takes over the `held` units and `pending` frames of the secondary. None when a rule
    exempts it here: then nothing of it is compared, so nothing of it stays held.
    """
    ledger = table.ledger
    touched = now - body["idle"]
    wanted = now - body["wanted"] if body["wanted"] is not None else 0.0
    key = _octets(body["key"])
    if (key[:1] == TCP_KEY) != (kept == TcpFlow.kept):
        raise ValueError("a key of another kind of flow")
    flow = table.adopt(key, now)
    if flow.kept != kept:
        for one in held:
            if not one.out:
                ledger.counters["taken_over"] += frames_of(one.unit)
                ledger.passed(one.unit, CAUSE)
        ledger.counters["secondary_taken_over"] += pending
        ledger.secondary_gone(pending, CAUSE)
        return None
    flow.touched, flow.wanted = touched, wanted
    flow.diverged, flow.unprotected = bool(body["diverged"]), bool(body["unprotected"])
    for one in held:
        ledger.take_over(flow, one)
    if wanted:
        ledger.requests.waiting[flow] = None
    if flow.unprotected:
        (ledger.unjudged if body.get("unjudged") is True else ledger.unprotected).add(flow.key)
    return flow


def _octets(value: Any) -> bytes:
    # `bytes` of a number would be that many zeros.
    if type(value) is not bytes:
        raise ValueError("bytes are expected")
    return value


def _unit(frames: list[Any], *, several: bool) -> Unit:
    return tuple(map(_octets, frames)) if several else _octets(frames[0])


def _frames(unit: Unit) -> list[bytes]:
    return [bytes(frame) for frame in frames_in(unit)]


# -- streams -----------------------------------------------------------------------------------------


def _pack_stream(flow: TcpFlow, now: float) -> dict[str, Any]:
    ledger, ref = flow.ledger, flow.ref
    past = [one for one in ref.pieces[: ref.first] if one.buffer and one.start >= flow.committed - HISTORY]
    body = _pack_flow(flow, now)
    body |= {name: getattr(flow, name) for name in FIELDS}
    body |= {name: [_pack_held(one, now) for one in getattr(flow, name)] for name in ("data", "waiting", "resets")}
    body |= {f"{name}_left": [(one.left, one.overtakes) for one in getattr(flow, name)] for name in ("data", "waiting")}
    body |= {
        "p_syn": flow.p_syn,
        "s_syn": flow.s_syn,
        "next_syn": [*flow.next_syn[:-1], now - flow.next_syn.at] if flow.next_syn else None,
        "rivals": flow.rivals,
        "clamped": _pack_lowered(flow.clamped) if flow.clamped else None,
        "segments": [(one.start, one.stop, one.buffer, one.offset) for one in [*past, *ref.pieces[ref.first :]]],
        "first": len(past),
        "fin": ref.fin,
    }
    for one in flow.held():
        ledger.hand_over(one)
    ledger.secondary_handed_over(*ref.forget(ledger.history))
    return body


def _unpack_stream(table: Table, body: dict[str, Any], now: float) -> None:
    ledger = table.ledger
    fields: dict[str, Any] = {}
    for name, types in FIELDS.items():
        fields[name] = body.get(name, LATER[name]) if name in LATER else body[name]
        if type(fields[name]) not in types:
            raise ValueError(f"{name} of a stream has a wrong type")
    queues = {name: [_unpack_held(one, now) for one in body[name]] for name in ("data", "waiting", "resets")}
    for name in ("data", "waiting"):
        _unpack_left(queues[name], body.get(f"{name}_left", ()))
    ref = Reference()
    for start, stop, buffer, offset in body["segments"]:
        ref.insert(int(start), int(stop), _octets(buffer), int(offset))
    if len(ref.pieces) != len(body["segments"]) or not all(one.buffer for one in ref.pieces):
        raise ValueError("pieces of a stream overlap, or are empty")
    ref.first, ref.fin = int(body["first"]), body["fin"]
    if not 0 <= ref.first <= len(ref.pieces):
        raise ValueError("more history than pieces")
    fields |= queues
    fields |= {name: SynOptions(*body[name]) if body[name] else None for name in ("p_syn", "s_syn")}
    fields |= {
        "next_syn": _unpack_next_syn(body["next_syn"], now) if body["next_syn"] else None,
        "clamped": _unpack_lowered(body["clamped"]) if body["clamped"] else None,
        "rivals": tuple(map(int, body.get("rivals", ()))),
        "ref": ref,
    }
    held = [one for queue in queues.values() for one in queue]
    flow = _unpack_flow(table, body, TcpFlow.kept, held, ref.pending(), now)
    if flow is None:
        return
    for name, value in fields.items():
        setattr(flow, name, value)
    ledger.secondary_taken_over(ref.pending(), cost(ref.pieces))
    for piece in ref.pieces[: ref.first]:
        ledger.secondary_bytes -= ledger.history.add(piece)
    if any(one.left < one.equal < one.end for one in queues["data"]):
        ledger.stuck[flow] = now + HEAD_WAIT


def _unpack_next_syn(value: list[Any], now: float) -> NextSyn:
    options, isn, ack, edge, age = value
    return NextSyn(SynOptions(*options), isn, ack, edge, now - age)


def _pack_held(one: Held, now: float) -> list[Any]:
    body = None if one.buf is one.unit else bytes(one.buf)
    flags = one.syn << 1 | one.fin
    return [
        _frames(one.unit), body, one.l4, one.data, one.start, one.stop, flags, one.ack, one.win, now - one.at,
        one.equal, one.out,
    ]  # fmt: skip


def _unpack_held(value: list[Any], now: float) -> Held:
    frames, body, l4, data, start, stop, flags, ack, win, age, equal, out = value
    unit = _unit(frames, several=body is not None)
    buf = _octets(frames[0] if body is None else body)
    held = Held(Arrival(unit, buf, l4, data, win), start, stop, ack, now - age)
    held.syn, held.fin = flags >> 1, flags & 1
    held.end = stop + held.fin
    held.equal, held.out = equal, bool(out)
    return held


def _pack_lowered(one: LoweredWindow) -> list[Any]:
    """In the form of a held segment, which is what older versions kept here."""
    size = len(one.head)
    return [[one.head], None, one.l4, size, one.end, one.plain_edge, 0, one.ack, one.win, 0.0, one.edge, False]


def _unpack_lowered(value: list[Any]) -> LoweredWindow:
    (head,), _, l4, _, end, plain_edge, _, ack, win, _, edge, _ = value
    return LoweredWindow(_octets(head), l4, end, edge, plain_edge, ack, win)


def _unpack_left(queue: list[Held], left: Any) -> None:
    for one, (end, overtakes) in zip(queue, left, strict=bool(left)):
        if type(end) is not int or not one.start <= end <= (one.start if type(one.unit) is tuple else one.stop):
            raise ValueError("what has left is no part of a segment")
        one.left, one.overtakes = end, bool(overtakes)


# -- datagrams ---------------------------------------------------------------------------------------


def _pack_datagrams(flow: DatagramFlow, now: float) -> dict[str, Any]:
    ledger = flow.ledger
    body = _pack_flow(flow, now) | {
        "suspect": now - flow.suspect if flow.suspect else None,
        "matched_at": now - flow.matched_at,
        "unkept": flow.unkept,
        "unkept_at": now - flow.unkept_at,
        "count": flow.count,
        "pri_over": flow.pri_over,
        "sec_over": flow.sec_over,
        "pri": [
            [_frames(one.unit), type(one.unit) is tuple, one.body, now - one.at, one.index, one.out] for one in flow.pri
        ],
        "sec": [[_frames(unit), type(unit) is tuple, data, now - at] for data, at, unit in flow.sec],
    }
    for one in flow.pri:
        ledger.hand_over(one)
    ledger.secondary_handed_over(len(flow.sec), secondary_cost(flow.sec))
    return body


def _unpack_datagrams(table: Table, body: dict[str, Any], now: float) -> None:
    ledger = table.ledger
    pri = []
    for frames, several, data, age, index, out in body["pri"]:
        held = HeldDatagram(_unit(frames, several=several), _octets(data), now - age, int(index))
        held.out = bool(out)
        pri.append(held)
    sec: list[tuple[bytes, float, Unit]] = [
        (_octets(data), now - age, _unit(frames, several=several)) for frames, several, data, age in body["sec"]
    ]
    numbers = {name: int(body[name]) for name in ("count", "pri_over", "sec_over")}
    # A worker of an older version does not send these.
    numbers["unkept"] = int(body.get("unkept", 0))
    times = {name: now - float(body.get(name, now)) for name in ("unkept_at", "matched_at")}
    suspect = now - body["suspect"] if body["suspect"] is not None else 0.0
    adopted = _unpack_flow(table, body, DatagramFlow.kept, pri, len(sec), now)
    if adopted is None:
        return
    flow = cast("DatagramFlow", adopted)
    flow.pri, flow.sec = pri, sec
    for name, value in {**numbers, **times}.items():
        setattr(flow, name, value)
    ledger.secondary_taken_over(len(sec), secondary_cost(sec))
    if sec:
        ledger.lingering[flow] = None
    if suspect:
        flow.suspect = suspect
        ledger.suspects[flow] = suspect + GRACE
