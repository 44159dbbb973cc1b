"""How a difference in a stream is reported, and the frames that go into its evidence file."""

from typing import Any

from colo_compare.evidence import CONTEXT_BYTES, SHOWN_FRAMES
from colo_compare.tcp.state import Connection, Held
from colo_compare.unit import frames_in
from colo_proto.frame import ETH
from colo_proto.pcapng import Shown
from colo_proto.seq import MASK


def explain(flow: Connection, position: int, held: Held, now: float) -> dict[str, Any]:
    """The bytes of both guests around `position` in `held`, and the state of the connection."""
    low = max(position - CONTEXT_BYTES, held.start + held.syn)
    before = max(position - low, 0)
    at = held.data + low - held.start
    mine = bytes(held.buf[at : min(at + before + CONTEXT_BYTES, held.data + held.stop - held.start)])
    its, begin = flow.ref.slice(low, position + CONTEXT_BYTES)
    detail: dict[str, Any] = {
        "position": position & MASK,
        "context": before,
        "primary": mine.hex(),
        "secondary": its.hex(),
        "secondary_context": position - begin,
        "age_ms": round((now - held.at) * 1000),
        "held": len(flow.data) + len(flow.waiting),
        "secondary_pending": flow.ref.pending(),
        "committed": flow.offset(flow.committed if flow.committed >= 0 else position),
    }
    if flow.p_syn != flow.s_syn and held.syn:
        detail["primary_options"] = str(flow.p_syn)
        detail["secondary_options"] = str(flow.s_syn)
    return detail


def evidence(flow: Connection, verdict: str) -> list[Shown]:
    """Held frames of the primary, and the secondary's around the first that is not wholly equal, which gets the verdict
    as its comment. When the secondary's frames arrived is not kept, so they have the time of that one.
    """
    held = [one for one in flow.held() if one.buf]
    unequal = next((at for at, one in enumerate(held) if one.equal < one.end), 0)
    held = held[max(unequal - 2, 0) :][:SHOWN_FRAMES]
    worst = next((one for one in held if one.equal < one.end), held[0] if held else None)
    shown = []
    for one in held:
        place = f"primary, stream {flow.offset(one.start)} to {flow.offset(one.end)}"
        comment = verdict if one is worst else f"{place}, equal to {flow.offset(one.equal)}"
        shown += [Shown(0, one.at, frame, comment) for frame in frames_in(one.unit)]
    if worst is None:
        return shown
    first = max(flow.ref.find(worst.equal) - 2, 0)
    for piece in flow.ref.pieces[first : first + SHOWN_FRAMES]:
        if len(piece.buffer) > ETH + 14:
            comment = f"secondary, stream {flow.offset(piece.start)} to {flow.offset(piece.stop)}"
            shown.append(Shown(1, worst.at, piece.buffer, comment))
    return shown
