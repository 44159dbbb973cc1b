"""What goes along when a flow moves to another worker: everything that is known of it, and what it holds.

::

    pack(compare, chosen) ---- bytes ----> unpack(compare)         taken out of the one, put into the other

The frames of a flow that a worker has handled and those that the next one will handle are then one sequence, as
if a single worker had had them. Only history (bytes found equal long ago, for retransmissions) is cut short.

The books move with the frames: `handed_over` and `taken_over` (primary), `secondary_handed_over` and
`secondary_taken_over`. Times travel as ages. The form is msgpack, names beside values, so that workers of two versions
understand each other: unknown names are skipped, and a flow that cannot be read is left behind and counted.
"""

from collections.abc import Callable
from typing import Any, Final, cast

import msgpack

from colo_compare.datagram import GRACE, DatagramFlow, HeldDatagram
from colo_compare.dispatch import Dispatch
from colo_compare.flow import Flow, Unit
from colo_compare.history import SEGMENT_COST, cost
from colo_compare.ledger import Ledger
from colo_compare.stream import Reference
from colo_compare.tcp import TcpFlow
from colo_compare.tcp_part import HEAD_WAIT
from colo_compare.tcp_state import NEVER, Held, NextSyn
from colo_proto.errors import WireError
from colo_proto.net.stamp import NO_STAMP
from colo_proto.net.tcp import SynOptions

HISTORY: Final = 64 * 1024
"""Bytes of history that go along; what is in flight between a guest and its client may be sent again."""

FLAGS: Final = "adopted", "closed", "diverged", "opener", "s_rst", "unprotected"
NUMBERS: Final = (
    "committed", "headed", "mask_end", "mask_start", "near", "origin", "p_ack", "p_fin", "p_scale", "p_top", "p_win",
    "p_wire_ack", "parted", "repeated", "s_ack", "s_edge", "s_isn", "s_last_ack", "s_plain", "s_reset", "s_scale",
    "s_top", "s_win", "s_wire_ack", "stamp", "stamp_until", "unproven",
)  # fmt: skip
UNSURE: Final = "isn", "p_first", "s_first"
"""Numbers, or None."""
PLAIN: Final = (*FLAGS, *NUMBERS, *UNSURE, "moved")
"""What goes of a stream as it is."""
LATER: Final = {
    "headed": NEVER,
    "p_fin": NEVER,
    "parted": NEVER,
    "repeated": NEVER,
    "s_reset": NEVER,
    "s_top": NEVER,
    "stamp": NO_STAMP,
    "stamp_until": NEVER,
}
"""Fields that a worker of an older version does not send, and what they are then."""

Chosen = Callable[[bytes], bool]
"""Does the flow of this key move?"""


def pack(compare: Dispatch, chosen: Chosen, now: float) -> bytes:
    """Take the chosen flows, and what is there of their unfinished datagrams, out of `compare`."""
    flows = []
    for key, flow in list(compare.flows.items()):
        if not chosen(key):
            continue
        if flow.kept == TcpFlow.kept:
            flows.append(_tcp(cast("TcpFlow", flow), now))
        elif flow.kept == DatagramFlow.kept:
            flows.append(_datagrams(cast("DatagramFlow", flow), now))
        compare.release(flow)
    ledger = compare.ledger
    pieces: list[list[Any]] = [[], []]
    for side, assembler in enumerate(compare.fragments):
        for began, frames in assembler.extract(chosen):
            pieces[side].append([now - began, [bytes(frame) for frame in frames]])
            if side:
                ledger.held_secondary -= len(frames)
                ledger.counters["secondary_handed_over"] += len(frames)
            elif not ledger.shadow:
                ledger.held -= len(frames)
                ledger.counters["handed_over"] += len(frames)
    ledger.counters["flows_handed_over"] += len(flows)
    packed: bytes = msgpack.packb([flows, pieces], use_bin_type=True)
    return packed


def unpack(compare: Dispatch, data: bytes, now: float) -> int:
    """Put what `pack` gave into `compare`. How many flows came. `WireError` when it cannot be read at all."""
    try:
        flows, pieces = msgpack.unpackb(data, raw=False, strict_map_key=False)
        primary, secondary = ([(now - age, list(frames)) for age, frames in group] for group in pieces)
        if type(flows) is not list or any(type(one) is not bytes for _, group in primary + secondary for one in group):
            raise WireError("luggage", "not flows, and frames of unfinished datagrams")
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise WireError("luggage", str(error)[:120]) from None
    taken = 0
    for body in flows:
        try:
            (_put_tcp if body["kind"] == "tcp" else _put_datagrams)(compare, body, now)
            taken += 1
        except (KeyError, ValueError, TypeError, IndexError, OverflowError):
            compare.ledger.counters["handovers_malformed"] += 1
    counters = compare.ledger.counters
    for side, group in ((True, primary), (False, secondary)):
        for began, frames in group:
            for frame in frames:
                if side and not compare.ledger.shadow:
                    counters["taken_over"] += 1
                elif not side:
                    counters["secondary_taken_over"] += 1
                compare.again(frame, began, primary=side)
    counters["flows_taken_over"] += taken
    return taken


# -- streams ----------------------------------------------------------------------------------------


def _tcp(flow: TcpFlow, now: float) -> dict[str, Any]:
    ledger = flow.ledger
    ref = flow.ref
    past = [one for one in ref.segments[: ref.first] if one.buffer and one.start >= flow.committed - HISTORY]
    body: dict[str, Any] = {name: getattr(flow, name) for name in PLAIN}
    for name in ("data", "waiting"):
        body[f"{name}_left"] = [(one.gone, one.overtakes) for one in getattr(flow, name)]
    for name in ("data", "waiting", "resets"):
        body[name] = [_held(ledger, one, now) for one in getattr(flow, name)]
    body |= {
        "kind": "tcp",
        "key": flow.key,
        "idle": now - flow.touched,
        "wanted": now - flow.wanted if flow.wanted else None,
        "unjudged": flow.key in ledger.unjudged,
        "p_syn": flow.p_syn,
        "s_syn": flow.s_syn,
        "next_syn": [*flow.next_syn[:-1], now - flow.next_syn.at] if flow.next_syn else None,
        "rivals": flow.rivals,
        "clamped": _written(flow.clamped, now) if flow.clamped else None,
        "segments": [(one.start, one.stop, one.buffer, one.offset) for one in [*past, *ref.segments[ref.first :]]],
        "first": len(past),
        "fin": ref.fin,
    }
    pending, saved = ref.forget(ledger.history)
    ledger.secondary_bytes -= saved
    ledger.held_secondary -= pending
    ledger.counters["secondary_handed_over"] += pending
    return body


def _put_tcp(compare: Dispatch, body: dict[str, Any], now: float) -> None:
    ledger = compare.ledger
    plain = {name: body.get(name, LATER[name]) if name in LATER else body[name] for name in PLAIN}
    if not (
        all(type(plain[name]) is bool for name in FLAGS)
        and all(type(plain[name]) is int for name in NUMBERS)
        and all(plain[name] is None or type(plain[name]) is int for name in UNSURE)
        and type(plain["moved"]) is float
    ):
        raise ValueError("a field of a stream is none")
    queues = {name: [_read_held(one, now) for one in body[name]] for name in ("data", "waiting", "resets")}
    for name in ("data", "waiting"):
        _read_left(queues[name], body.get(f"{name}_left", ()))
    ref = Reference()
    for start, stop, buffer, offset in body["segments"]:
        ref.insert(int(start), int(stop), _octets(buffer), int(offset))
    if len(ref.segments) != len(body["segments"]) or not all(one.buffer for one in ref.segments):
        raise ValueError("segments of a stream overlap, or are empty")
    ref.first, ref.fin = int(body["first"]), body["fin"]
    if not 0 <= ref.first <= len(ref.segments):
        raise ValueError("more history than segments")
    apart = {
        "p_syn": SynOptions(*body["p_syn"]) if body["p_syn"] else None,
        "s_syn": SynOptions(*body["s_syn"]) if body["s_syn"] else None,
        "next_syn": _next_syn(body["next_syn"], now) if body["next_syn"] else None,
        "clamped": _read_held(body["clamped"], now) if body["clamped"] else None,
        "rivals": tuple(map(int, body.get("rivals", ()))),
    }
    adopted = compare.adopt(_octets(body["key"]), now, stream=True)
    held = [one for queue in queues.values() for one in queue]
    if adopted.kept != TcpFlow.kept:
        # A rule exempts it here: nothing of it is compared, so nothing of it is held.
        _let_pass(ledger, held)
        pending = ref.pending()
        ledger.counters["secondary_taken_over"] += pending
        ledger.secondary_gone(pending, "rule")
        return
    flow = cast("TcpFlow", adopted)
    for name, value in {**plain, **queues, **apart, "ref": ref}.items():
        setattr(flow, name, value)
    for one in held:
        _hold(ledger, flow, one)
    pending = ref.pending()
    ledger.held_secondary += pending
    ledger.counters["secondary_taken_over"] += pending
    ledger.secondary_bytes += cost(ref.segments)
    for one_more in ref.segments[: ref.first]:
        ledger.secondary_bytes -= ledger.history.add(one_more)
    if any(one.gone < one.good < one.end for one in flow.data):
        ledger.stuck[flow] = now + HEAD_WAIT
    _join(ledger, flow, body, now)


def _next_syn(value: list[Any], now: float) -> NextSyn:
    options, isn, ack, edge, age = value
    return NextSyn(SynOptions(*options), isn, ack, edge, now - age)


def _held(ledger: Ledger, one: Held, now: float) -> list[Any]:
    ledger.unhold(one)
    if not one.out:
        ledger.counters["handed_over"] += len(_frames(one.unit))
    return _written(one, now)


def _written(one: Held, now: float) -> list[Any]:
    body = None if one.buf is one.unit else bytes(one.buf)
    flags = one.syn << 1 | one.fin
    return [
        _frames(one.unit), body, one.l4, one.data, one.start, one.stop, flags, one.ack, one.win, now - one.at, one.good,
        one.out,
    ]  # fmt: skip


def _read_held(value: list[Any], now: float) -> Held:
    frames, body, l4, data, start, stop, flags, ack, win, age, good, out = value
    unit: Unit = _unit(frames, many=body is not None)
    held = Held(unit, _octets(frames[0] if body is None else body), l4, data, start, stop, ack, win, now - age)
    held.syn, held.fin = flags >> 1, flags & 1
    held.end = stop + held.fin
    held.good, held.out = good, bool(out)
    return held


def _read_left(queue: list[Held], left: list[Any]) -> None:
    for one, (gone, overtakes) in zip(queue, left, strict=bool(left)):
        if type(gone) is not int or not one.start <= gone <= (one.start if type(one.unit) is tuple else one.stop):
            raise ValueError("what has left is no part of a segment")
        one.gone, one.overtakes = gone, bool(overtakes)


# -- datagrams --------------------------------------------------------------------------------------


def _datagrams(flow: DatagramFlow, now: float) -> dict[str, Any]:
    ledger = flow.ledger
    body: dict[str, Any] = {
        "kind": "datagrams",
        "key": flow.key,
        "idle": now - flow.touched,
        "wanted": now - flow.wanted if flow.wanted else None,
        "suspect": now - flow.suspect if flow.suspect else None,
        "diverged": flow.diverged,
        "unprotected": flow.unprotected,
        "unjudged": flow.key in ledger.unjudged,
        "moved": now - flow.moved,
        "unkept": flow.unkept,
        "unkept_at": now - flow.unkept_at,
        "count": flow.count,
        "pri_over": flow.pri_over,
        "sec_over": flow.sec_over,
        "pri": [],
        "sec": [[_frames(unit), type(unit) is tuple, data, now - at] for data, at, unit in flow.sec],
    }
    for one in flow.pri:
        ledger.unhold(one)
        if not one.out:
            ledger.counters["handed_over"] += len(_frames(one.unit))
        kind = type(one.unit) is tuple
        body["pri"].append([_frames(one.unit), kind, one.body, now - one.at, one.index, one.out])
    flow.pri = []
    count = len(flow.sec)
    ledger.secondary_bytes -= sum(2 * len(data) + SEGMENT_COST for data, _, _ in flow.sec)
    flow.sec = []
    ledger.held_secondary -= count
    ledger.counters["secondary_handed_over"] += count
    return body


def _put_datagrams(compare: Dispatch, body: dict[str, Any], now: float) -> None:
    ledger = compare.ledger
    pri = []
    for frames, many, data, age, index, out in body["pri"]:
        held = HeldDatagram(_unit(frames, many=many), _octets(data), now - age, int(index))
        held.out = bool(out)
        pri.append(held)
    sec: list[tuple[bytes, float, Unit]] = [
        (_octets(data), now - age, _unit(frames, many=many)) for frames, many, data, age in body["sec"]
    ]
    numbers = {name: int(body[name]) for name in ("count", "pri_over", "sec_over")}
    # A worker of an older version says nothing of these.
    numbers["unkept"] = int(body.get("unkept", 0))
    unkept_at, moved = (now - float(body.get(name, now)) for name in ("unkept_at", "moved"))
    adopted = compare.adopt(_octets(body["key"]), now, stream=False)
    ledger.counters["secondary_taken_over"] += len(sec)
    if adopted.kept != DatagramFlow.kept:
        _let_pass(ledger, pri)
        ledger.secondary_gone(len(sec), "rule")
        return
    flow = cast("DatagramFlow", adopted)
    flow.pri, flow.sec = pri, sec
    for name, value in numbers.items():
        setattr(flow, name, value)
    flow.unkept_at, flow.moved = unkept_at, moved
    flow.diverged, flow.unprotected = bool(body["diverged"]), bool(body["unprotected"])
    for one in pri:
        _hold(ledger, flow, one)
    ledger.held_secondary += len(sec)
    ledger.secondary_bytes += sum(2 * len(data) + SEGMENT_COST for data, _, _ in sec)
    if sec:
        ledger.lingering[flow] = None
    if body["suspect"] is not None:
        flow.suspect = now - body["suspect"]
        ledger.suspects[flow] = flow.suspect + GRACE
    _join(ledger, flow, body, now)


# -- both -------------------------------------------------------------------------------------------


def _octets(value: Any) -> bytes:
    # `bytes` of a number would be so many zeros.
    if type(value) is not bytes:
        raise ValueError("bytes are expected")
    return value


def _unit(frames: list[Any], *, many: bool) -> Unit:
    return tuple(map(_octets, frames)) if many else _octets(frames[0])


def _frames(unit: Unit) -> list[bytes]:
    return [bytes(frame) for frame in unit] if type(unit) is tuple else [bytes(unit)]  # type: ignore[arg-type]


def _hold(ledger: Ledger, flow: Flow, one: Held | HeldDatagram) -> None:
    frames = _frames(one.unit)
    ledger.held_bytes += sum(map(len, frames))
    if one.out:
        ledger.lingering[flow] = None
    else:
        ledger.held += len(frames)
        ledger.counters["taken_over"] += len(frames)
        ledger.holding[flow] = None


def _let_pass(ledger: Ledger, held: "list[Held] | list[HeldDatagram]") -> None:
    for one in held:
        if not one.out:
            ledger.counters["taken_over"] += len(_frames(one.unit))
            ledger.passed(one.unit, "rule")


def _join(ledger: Ledger, flow: Any, body: dict[str, Any], now: float) -> None:
    flow.touched = now - body["idle"]
    flow.wanted = now - body["wanted"] if body["wanted"] is not None else 0.0
    if flow.wanted:
        ledger.asked[flow] = None
    if flow.unprotected:
        (ledger.unjudged if body.get("unjudged") is True else ledger.unprotected).add(flow.key)
