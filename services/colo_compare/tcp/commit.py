"""How far both guests have come: holding segments, comparing them with the secondary's bytes, and releasing them.

::

    data      by position: not equal to the end yet      --match-->    waiting, or released
    waiting   by ACK: equal, acknowledges too much       --unblock-->  released
    resets    RSTs that the secondary has not sent yet   --reset-->    released

Two guests need not cut their bytes or probe in the same way: what would keep both waiting leaves in part (`partial`).
"""

from bisect import bisect_left, insort
from typing import Final

from colo_compare.evidence import first_difference
from colo_compare.tcp.departure import client_may_be_at, outrun, part
from colo_compare.tcp.explain import explain
from colo_compare.tcp.lateness import may_come_later
from colo_compare.tcp.overflow import keep_ack, keep_place, place_ahead
from colo_compare.tcp.partial import HEAD_WAIT
from colo_compare.tcp.reference import LOWEST
from colo_compare.tcp.state import Connection, Held, by_ack, by_start
from colo_compare.tcp.window import emit, emit_syn, reopen
from colo_proto.messages import Reason
from colo_proto.net.stamp import NO_STAMP

MAX_SEGMENT: Final = 1 << 16
"""No segment has more bytes."""


def confirm(flow: Connection, committed: int) -> None:
    """Everything before `committed` was found equal: account for the secondary's frames."""
    ledger = flow.ledger
    pieces, saved = flow.ref.confirm(committed, ledger.history)
    ledger.held_secondary -= pieces
    ledger.secondary_compared += pieces
    ledger.secondary_bytes -= saved


# -- holding and releasing ---------------------------------------------------------------------------


def _full(flow: Connection, held: Held, queued: int) -> bool:
    # In shadow mode a guest may be ahead of the other as far as there is memory: its client waits for neither.
    ledger = flow.ledger
    bound = ledger.max_ahead if ledger.ahead(flow) else ledger.max_queue_size
    if (queued < bound and ledger.room(flow)) or (_awaited(flow, held) and not flow.wanted):
        return False
    if not ledger.ahead(flow):
        ledger.refuse(flow, held, queued, ask=not may_come_later(flow, held.at))
    return True


def _awaited(flow: Connection, held: Held) -> bool:
    """Is this what all others wait for? A queue that is full has room for it, or it could never become shorter. When
    the memory for all connections is used up, it must leave at once, because the secondary has sent the same place.
    """
    base, data, ref = flow.committed, flow.data, flow.ref
    if held.start > base or held.end <= base or (data and data[0].start <= base):
        return False
    sent = ref.pending() > 0 and ref.pieces[ref.first].start <= base
    return sent or flow.ledger.held_bytes < flow.ledger.max_held_bytes


def hold(flow: Connection, held: Held) -> None:
    """Keep a segment until its bytes are found equal, within the bounds."""
    data, ledger = flow.data, flow.ledger
    if _full(flow, held, len(data) + len(flow.waiting)):
        if ledger.ahead(flow):
            keep_place(flow, held)
        return
    ledger.hold(flow, held)
    if not data or data[-1].start <= held.start:
        data.append(held)
    else:
        held.overtakes = True
        insort(data, held, key=by_start)


def wait(flow: Connection, held: Held) -> None:
    """Keep a segment whose bytes are equal until the secondary acknowledges as much, within the bounds."""
    waiting, ledger = flow.waiting, flow.ledger
    many = ledger.ahead(flow) and len(waiting) >= ledger.max_queue_size
    if many or _full(flow, held, len(flow.data) + len(waiting)):
        if ledger.ahead(flow):
            keep_ack(flow, held)
        return
    if flow.data:
        held.overtakes = True
    ledger.hold(flow, held)
    queue(flow, held)


def hold_reset(flow: Connection, held: Held) -> None:
    """Keep a RST until the secondary sends one as well, within the bounds."""
    if not _full(flow, held, len(flow.resets)):
        flow.ledger.hold(flow, held)
        flow.resets.append(held)


def queue(flow: Connection, held: Held) -> None:
    """Its bytes are equal; it waits for the secondary's ACK."""
    waiting = flow.waiting
    if not waiting or waiting[-1].ack <= held.ack:
        waiting.append(held)
    else:
        insort(waiting, held, key=by_ack)


def secondary_advanced(flow: Connection) -> None:
    """The secondary may have acknowledged or offered more."""
    if not flow.diverged:
        unblock(flow)
        if flow.clamped is not None:
            reopen(flow, flow.clamped)


def unblock(flow: Connection) -> None:
    """The secondary acknowledged more: release the segments that waited for that."""
    waiting, limit = flow.waiting, flow.s_ack
    gone = 0
    for held in waiting:
        if held.ack > limit:
            break
        gone += 1
    if gone:
        for held in waiting[:gone]:
            release(flow, held)
        del waiting[:gone]


def release(flow: Connection, held: Held) -> None:
    """`held` leaves."""
    flow.ledger.unhold(held)
    if held.out:
        flow.ledger.lag.found(held.at)
        return
    flow.ledger.lag.waited(flow.touched - held.at)
    if held.syn:
        emit_syn(flow, held)
    elif isinstance(held.unit, tuple) or not (flow.stamp != NO_STAMP or held.overtakes or held.left > held.start):
        emit(flow, held.unit, held.buf, held.l4, held.data, held.end, held.ack, held.win)
    else:
        # Not all of it leaves, or not in the order in which it was sent.
        rest = part(flow, held, held.left, held.end)
        if held.overtakes and client_may_be_at(flow, held.start):
            outrun(flow, held.buf, held.l4, held.data)
        emit(flow, rest, rest, held.l4, held.data, held.end, held.ack, held.win)


# -- comparing ---------------------------------------------------------------------------------------


def advance(flow: Connection, now: float) -> None:
    """Compare held segments as far as the secondary's bytes reach, and release those that are equal."""
    data = flow.data
    at = 0
    while at < len(data) and not flow.diverged:
        held = data[at]
        committed = flow.committed
        if committed < 0 or held.start > committed:
            break
        if not _match(flow, held, committed, now):
            break
        if held.equal > committed:
            flow.committed = held.equal
            flow.advanced_at = now
            confirm(flow, held.equal)
        if held.equal < held.end:
            at += 1
            if held.equal > held.left and flow not in flow.ledger.stuck:
                flow.ledger.stuck[flow] = now + HEAD_WAIT
            continue
        del data[at]
        if at:
            # What is equal in part, and begins before it, follows it.
            held.overtakes = True
            at = 0
        if held.fin and flow.ref.fin is not None:
            flow.closed = True
        if held.ack <= flow.s_ack:
            release(flow, held)
        else:
            if flow.waiting and flow.waiting[-1].at >= held.at:
                flow.waiting[-1].overtakes = True
            queue(flow, held)
    if data and (flow.ref.fin is not None or flow.p_fin > LOWEST) and not flow.diverged:
        _match_ends(flow, now)


def compare_new(flow: Connection, start: int, stop: int, now: float) -> None:
    """Bytes from `start` to `stop` came, of either side: compare as far as that is possible."""
    advance(flow, now)
    if stop > flow.committed and flow.data and flow.ref.pending():
        _match_behind(flow, start, stop, now)


def _match_behind(flow: Connection, start: int, stop: int, now: float) -> None:
    """Something is missing before the new bytes. If they differ, that is a difference already, whatever the missing
    bytes will be. (Masks are not tried, because they need to know what comes before.)
    """
    data, pieces = flow.data, flow.ref.pieces
    start = max(start, flow.committed)
    if flow.rule.masks or flow.diverged or flow.committed < 0:
        return
    for at in range(bisect_left(data, start - MAX_SEGMENT, key=by_start), len(data)):
        held = data[at]
        if held.start >= stop:
            break
        if held.stop - held.start <= 1 or not held.buf:
            # The byte of a keep-alive may be garbage.
            continue
        for which in range(flow.ref.find(max(start, held.start)), len(pieces)):
            one = pieces[which]
            low, high = max(start, held.start, one.start), min(stop, held.stop, one.stop)
            if low >= high:
                break
            mine = held.buf[held.data + low - held.start : held.data + high - held.start]
            its = one.buffer[one.offset + low - one.start : one.offset + high - one.start]
            if mine != its:
                _diverge(flow, Reason.PAYLOAD, low + first_difference(mine, its), held, now)
                return


def _match_ends(flow: Connection, now: float) -> None:
    """Has one stream ended where the other goes on? Then they differ, even if something before that is missing yet."""
    fin, pieces = flow.ref.fin, flow.ref.pieces
    for held in flow.data:
        if held.end <= flow.committed:
            continue
        if fin is not None and (held.stop > fin or (held.fin and held.stop != fin)):
            _diverge(flow, Reason.FIN, min(fin, held.stop) if held.fin else fin, held, now)
            return
        if held.fin and fin is None and pieces and pieces[-1].stop > held.stop:
            _diverge(flow, Reason.FIN, held.stop, held, now)
            return


def _match(flow: Connection, held: Held, committed: int, now: float) -> bool:
    """Move `held.equal` over everything that is equal; False when a difference was found."""
    position, stop, ref = held.equal, held.stop, flow.ref
    if held.syn and position == held.start:
        if position >= committed and not _match_syn(flow, held, now):
            # In shadow mode a difference is reported and forgotten, so `diverged` does not tell.
            return flow.s_syn is None
        if flow.s_syn is None:
            return True
        position += 1
    pieces = ref.pieces
    at = ref.first if position >= committed else ref.find(position)
    count = len(pieces)
    buf, delta = held.buf, held.data - held.start
    while position < stop:
        while at < count and (pieces[at].stop <= position or not pieces[at].buffer):
            at += 1
        if at == count or pieces[at].start > position:
            if position >= committed or position < flow.unproven or (flow.isn is not None and position < flow.isn):
                # (What lies before the beginning of the stream is no part of it.)
                break
            # A retransmission of bytes whose history is gone.
            upto = min(stop, committed, pieces[at].start if at < count else stop)
            flow.ledger.counters["bytes_unverified"] += upto - position
            position = upto
            continue
        one = pieces[at]
        other = one.buffer
        upto = min(stop, one.stop)
        size = upto - position
        mine, its = position + delta, one.offset + position - one.start
        if buf[mine : mine + size] != other[its : its + size]:
            if not buf:
                flow.ledger.counters["bytes_unjudged"] += size
                position = upto
                continue
            if stop - held.start <= 1 and stop == flow.p_top and position < committed:
                # A keep-alive may carry one garbage byte before SND.NXT (RFC 9293 §3.8.4).
                position = stop
                break
            where = position + first_difference(buf[mine : mine + size], other[its : its + size])
            excused = _excused(flow, held, where) if flow.rule.masks else False
            if excused:
                flow.ledger.counters["bytes_masked"] += min(flow.mask_end, upto) - where
                position = min(flow.mask_end, upto)
                continue
            held.equal = where
            if excused is None:
                # A mask may still cover it when more bytes have come. If none come, compare_timeout asks.
                return True
            _diverge(flow, Reason.PAYLOAD, where, held, now)
            return False
        if position >= committed:
            flow.ledger.bytes_compared += size
        position = upto
    held.equal = position
    fin = ref.fin
    if position == stop and held.fin:
        if fin == stop:
            held.equal = held.end
        elif fin is not None or ((at := ref.find(stop)) < len(pieces) and pieces[at].start <= stop):
            _diverge(flow, Reason.FIN, stop, held, now)
            return False
    elif fin is not None and stop > fin and position >= fin and held.end > committed:
        _diverge(flow, Reason.FIN, fin, held, now)
        return False
    return True


def _excused(flow: Connection, held: Held, where: int) -> bool | None:
    """Does a mask cover the difference at `where`? Then `mask_end` says how far. None when an expression may cover it
    once more bytes are here.
    """
    if flow.mask_start <= where < flow.mask_end:
        return True
    undecided = False
    for mask in flow.rule.masks:
        if mask.pattern is None:
            # Offsets count from the SYN, so they are not known in a connection that was adopted from the middle.
            stop = mask.place(flow.offset(where)) if flow.isn is not None else None
            if stop is not None:
                flow.mask_start, flow.mask_end = where, where + stop - flow.offset(where)
                return True
            continue
        # What came before is equal, so the secondary's bytes serve for both.
        its, begin = flow.ref.slice(where - mask.window, where + mask.window)
        before = where - begin
        mine = its[:before] + _bytes_from(flow, held, where, mask.window)
        reach = mask.covers(mine, its, before)
        if reach:
            flow.mask_start, flow.mask_end = where, where + reach
            return True
        undecided |= min(len(mine), len(its)) < before + mask.window
        if len(mine) < before + mask.window and place_ahead(flow, where, mask.window):
            # What the expression would need to see was not kept.
            flow.mask_start, flow.mask_end = where, held.stop
            return True
    return None if undecided and flow.ref.fin is None else False


def _bytes_from(flow: Connection, held: Held, where: int, size: int) -> bytes:
    """At most `size` bytes of the primary from `where`, in `held` and what follows it."""
    at = held.data + where - held.start
    found = bytes(held.buf[at : held.data + held.stop - held.start][:size])
    for one in flow.data:
        position = where + len(found)
        if len(found) >= size:
            break
        if one.start <= position < one.stop:
            at = one.data + position - one.start
            found += bytes(one.buf[at : one.data + one.stop - one.start][: size - len(found)])
    return found


def _match_syn(flow: Connection, held: Held, now: float) -> bool:
    if flow.s_syn is None:
        return False
    if flow.p_syn != flow.s_syn:
        _diverge(flow, Reason.OPTIONS, held.start, held, now)
        return False
    mine, its = flow.p_syn.wscale if flow.p_syn else None, flow.s_syn.wscale
    # Windows are scaled only when both directions offer it. A guest's SYN/ACK has the option only in answer to one.
    # Whether the offer of an opener was accepted is never seen here (see `opener`).
    flow.p_scale, flow.s_scale = mine or 0, its or 0
    flow.s_win = -1
    return True


def _diverge(flow: Connection, reason: str, position: int, held: Held, now: float) -> None:
    flow.diverged = True
    flow.ledger.counters["miscompares"] += 1
    flow.ledger.want(flow, reason, flow.offset(position), explain(flow, position, held, now), now)


def reset(flow: Connection, held: Held | None) -> None:
    """Both sides reset the connection: what is still held can never be compared, and the RSTs leave, `held` too."""
    ledger = flow.ledger
    for one in (*flow.data, *flow.waiting):
        ledger.drop(one, "reset")
    resets, fin = flow.resets, flow.ref.fin
    flow.clear_queues()
    flow.forget_reference("overtaken")
    flow.ref.fin = fin
    for one in resets:
        ledger.unhold(one)
        if not one.out:
            ledger.sink.append(one.unit)
    if held is not None:
        ledger.sink.append(held.unit)
    flow.closed = True
    flow.clamped = None
