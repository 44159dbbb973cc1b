"""Cores, fuzzed: each target takes a random source and a number of inputs, and raises."""

from contextlib import suppress
from random import Random
from typing import Any

import msgpack

from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_compare.handover import state as flow_state
from colo_compare.tcp.history import PIECE_COST, cost
from colo_mirror.config import MirrorConfig
from colo_mirror.mirror import Mirror
from colo_proto import codec
from colo_proto.claim import Stand, State, derive, is_claim, write_claim
from colo_proto.core import Log, Save, Send, Tell
from colo_proto.errors import WireError
from colo_proto.frame import ETH
from colo_proto.messages import (
    CheckpointDone,
    Demote,
    LanAsk,
    LanSay,
    Mode,
    Promote,
    SetMode,
    SetRules,
    Unprotected,
    WorkerTable,
)
from colo_proto.pcapng import encode as pcapng
from colo_redirector.config import RedirectorConfig
from colo_redirector.redirector import Redirector
from colo_rewriter.config import RewriterConfig
from colo_rewriter.rewriter import Rewriter

from . import corpus, mutate
from .views import check


def any_frame(random: Random, side: str, streams: corpus.Streams) -> bytes:
    """A nearly valid segment, a datagram, or a frame of another kind; some of them are damaged."""
    how = random.random()
    if how < 0.6:
        return streams.segment(side)
    if how < 0.75:
        one = streams.segment(side)
    elif how < 0.8:
        return random.choice(corpus.DATAGRAMS[side])
    else:
        one = random.choice(corpus.FRAMES)
    return mutate.frame(random, one, random.choice(corpus.FRAMES))


class Books:
    """A compare and its counters, which `look` checks."""

    def __init__(self, random: Random, mode: str = "") -> None:
        config = CompareConfig(
            max_flows=random.choice((8, 16, 65536)),
            max_queue_size=random.choice((2, 8, 1024)),
            max_stream_mib=1,
            max_held_mib=1,
            max_secondary_mib=1,
            mode=mode or random.choice((Mode.ENFORCE, Mode.ENFORCE, Mode.ENFORCE, Mode.SHADOW)),
            evidence_dir=random.choice(("", "somewhere")),
            evidence_files=2,
        )
        self.core = Compare(config)
        self.sent = 0

    def take(self, outputs: list[Any]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self.sent += len(output.frames)
                check(all(len(frame) >= ETH for frame in output.frames))
            elif isinstance(output, Save):
                check(len(pcapng(output.capture)) < 4 << 20)
            else:
                check(isinstance(output, Log | Tell))
                if isinstance(output, Tell):
                    codec.decode(codec.encode(output.message))

    def look(self) -> None:
        core = self.core
        c, g = core.counters, core.gauges()
        dropped = sum(n for name, n in c.items() if name.startswith("dropped."))
        gone = sum(n for name, n in c.items() if name.startswith("secondary_dropped."))
        out = c["released"] - c["synthesized"] + dropped + c["handed_over"]
        check(c["frames_primary"] + c["taken_over"] == out + g["held"], c, g)
        gone += c["secondary_handed_over"] - c["secondary_split"]
        check(c["frames_secondary"] + c["secondary_taken_over"] == gone + g["held_secondary"], c, g)
        check(self.sent == c["released"], self.sent, c)
        check(min(c.values(), default=0) >= 0, c)
        check(min(g.values()) >= 0, g)
        check(g["flows"] <= core.config.max_flows)
        units = [held for flow in core.table.flows.values() for held in _held(flow)]
        parts = [frame for held in units for frame in (held.unit if type(held.unit) is tuple else (held.unit,))]
        check(g["held_bytes"] == sum(map(len, parts)), g, len(parts))
        check(g["secondary_bytes"] == sum(_secondary(flow) for flow in core.table.flows.values()), g)
        past = [flow.ref.pieces[: flow.ref.first] for flow in core.table.flows.values() if hasattr(flow, "ref")]
        check(core.ledger.history.size == sum(map(cost, past)), core.ledger.history.size)
        check(core.table.fragments[0].size >= 0)


def _held(flow: Any) -> list[Any]:
    """Bytes that a flow keeps of the primary, whether they are sent already (shadow) or not."""
    if hasattr(flow, "pri"):
        return list(flow.pri)
    return [*flow.data, *flow.waiting, *flow.resets] if hasattr(flow, "data") else []


def _secondary(flow: Any) -> int:
    """Bytes that a flow keeps of the secondary, as the ledger charges them."""
    if hasattr(flow, "sec"):
        return sum(2 * len(body) + PIECE_COST for body, *_ in flow.sec)
    return cost(flow.ref.pieces) if hasattr(flow, "ref") else 0


_RULES = (
    "", "pass udp", "shadow tcp guest-port 80", "shadow udp\nshadow icmp", "compare tcp port 80 mask 3:40",
    "compare any mask /[a-z]+/",
)  # fmt: skip


def compare(random: Random, inputs: int) -> None:
    """Both inputs, checkpoints, modes, rules, time."""
    books = Books(random)
    core = books.core
    now = 1.0
    streams = corpus.Streams(random)
    done = 0
    while done < inputs:
        size = random.choice((1, 1, 2, 5, 20))
        batch = [any_frame(random, "g", streams) for _ in range(size)]
        done += size
        books.take(core.receive(random.choice(("primary_in", "secondary_in")), batch, now))
        if random.random() < 0.5:
            # The other guest often sends the same, because most of the code runs only then.
            books.take(core.receive(random.choice(("primary_in", "secondary_in")), batch, now))
            done += size
        how = random.random()
        if how < 0.05:
            now += random.choice((0.01, 0.15, 1.0, 5.0, 200.0))
            while (due := core.deadline()) is not None and due <= now:
                books.take(core.on_timer(now))
        elif how < 0.08:
            books.take(core.tell(CheckpointDone(done, state_copied=random.random() < 0.5), now))
        elif how < 0.09:
            books.take(core.tell(SetMode(random.choice(Mode.ALL)), now))
        elif how < 0.1:
            books.take(core.tell(SetRules(random.choice(_RULES)), now))
        elif how < 0.2:
            streams.advance()
        books.look()
    core.status()
    books.take(core.drain(now))
    books.look()
    gauges = core.gauges()
    check(not any(gauges[name] for name in ("held", "held_bytes", "held_secondary", "secondary_bytes")), gauges)


def moving(random: Random, inputs: int) -> None:
    """Flows are handed over between two workers at any moment, and damaged flow state to a third."""
    mode = random.choice((Mode.ENFORCE, Mode.SHADOW))
    workers = [Books(random, mode), Books(random, mode)]
    rules = random.choice(("", "", *_RULES))
    for one in workers:
        one.take(one.core.tell(SetRules(rules), 1.0))
    streams = corpus.Streams(random)
    now = 1.0
    done = 0
    while done < inputs:
        batch = [any_frame(random, "g", streams) for _ in range(random.choice((1, 2, 10)))]
        done += len(batch)
        port = random.choice(("primary_in", "secondary_in"))
        books = random.choice(workers)
        books.take(books.core.receive(port, batch, now))
        if random.random() < 0.6:
            books.take(books.core.receive("primary_in" if port == "secondary_in" else "secondary_in", batch, now))
        if random.random() < 0.1:
            now += random.choice((0.01, 0.2, 4.0))
            for one in workers:
                while (due := one.core.deadline()) is not None and due <= now:
                    one.take(one.core.on_timer(now))
            streams.advance()
        if random.random() < 0.1:
            part = random.choice((0, 1, 255))
            source, target = random.sample(workers, 2)
            packed = flow_state.pack(source.core.table, lambda key, part=part: key[-1] & 1 == part or part == 255, now)
            _damaged(random, packed, now)
            flow_state.unpack(target.core.table, packed, now)
            check(not target.core.counters["handovers_malformed"], "what was packed is not understood")
            for one in workers:
                one.take(one.core.on_timer(now))
        for one in workers:
            one.look()
    for one in workers:
        one.take(one.core.drain(now))
        one.look()
    given, taken = (sum(one.core.counters[name] for one in workers) for name in ("handed_over", "taken_over"))
    check(given == taken, given, taken)


def _damaged(random: Random, packed: bytes, now: float) -> None:
    """A worker that is given damaged flow state refuses it, or leaves a flow out and counts it."""
    if random.random() < 0.5:
        data = mutate.blob(random, packed)
    else:
        data = mutate.packed(mutate.structure(random, msgpack.unpackb(packed, raw=False)))
    with suppress(WireError):
        flow_state.unpack(Books(random).core.table, data, now)


MADE = ("neighbour_answers", "announcements", "revivals", "refusals", "resets_made")
"""Frames that a rewriter makes itself outside of shadow mode."""


def unprotected(random: Random, core: Rewriter) -> Unprotected:
    """Something about some of the connections that the rewriter knows."""
    keys: list[list[bytes]] = [[], [], []]
    for flow in core._table:
        random.choice(keys).append(b"\x06" + flow.key_guest)
    return Unprotected("comp0", random.randrange(9), random.random() < 0.5, *keys, everything=random.random() < 0.1)


def rewriter(random: Random, inputs: int) -> None:
    """Both ways, checkpoints, promotion, time."""
    standby = random.choice(("", "tap://lan"))
    limits = RewriterConfig(
        standby=standby, max_flows=random.choice((1, 4, 65536)), hold_frames=random.choice((0, 2, 64))
    )
    core = Rewriter(limits)
    now = 1.0
    streams = corpus.Streams(random)
    done = sent = 0
    while done < inputs:
        side = random.choice("cg")
        batch = [any_frame(random, side, streams) for _ in range(random.choice((1, 1, 3, 10)))]
        done += len(batch)
        port = "netdev" if side == "g" else random.choice(("indev", "standby")) if standby else "indev"
        outputs = core.receive(port, batch, now)
        how = random.random()
        if how < 0.03:
            now += random.choice((0.1, 1.0, 2.5, 100.0, 8000.0))
            while (due := core.deadline()) is not None and due <= now:
                outputs += core.on_timer(now)
        elif how < 0.05:
            outputs += core.tell(CheckpointDone(done, state_copied=random.random() < 0.5), now)
        elif how < 0.055:
            replica = random.random() < 0.5
            outputs += core.tell(random.choice((Promote(done, replica=replica), Demote(done))), now)
        elif how < 0.07:
            outputs += core.tell(unprotected(random, core), now)
        elif how < 0.075:
            outputs += core.drain(now)
        elif how < 0.15:
            streams.advance()
        sent += sum(len(output.frames) for output in outputs if isinstance(output, Send))
        counters, gauges = core.counters, core.gauges()
        dropped = sum(n for name, n in counters.items() if name.startswith("dropped."))
        made = sum(counters[name] for name in ("frames_in", *MADE))
        check(made == counters["frames_out"] + dropped + gauges["held"], counters, gauges)
        check(sent == counters["frames_out"], sent, counters)
        check(min(gauges.values()) >= 0, gauges)
        check(gauges["flows"] <= limits.max_flows)
    core.status()
    core.drain(now)
    check(core.gauges()["held"] == 0 and core.gauges()["held_bytes"] == 0)


# -- filters without a state of flows --------------------------------------------------------------------


KEYS = derive(b"", "colo")
"""The seal of COLO frames that have no secret."""


def claim(random: Random) -> bytes:
    """A claim with the right seal and numbers from anywhere."""
    anywhere = (0, 1, 2, 5, 2**31, 2**63 - 1, 2**63, 2**64 - 1)
    numbers = [random.choice(anywhere) for _ in range(6)]
    answers = tuple((random.choice(anywhere), random.choice(anywhere)) for _ in range(random.randrange(6)))
    lease = random.choice((0, 1, 1000, 2**32 - 1))
    sides, states = ("primary", "secondary"), State.ALL
    flags = [random.random() < 0.5 for _ in range(4)]
    stand = Stand(
        random.choice(sides), *numbers[:3], random.choice(states), *flags[:2], lease, *numbers[3:], *flags[2:], answers
    )
    return write_claim(stand, "colo", KEYS)


def passing(random: Random, inputs: int) -> None:
    """Mirror and redirectors: claims, promotion and its end, announcements."""
    end = "ipc:///run/x"
    mirror = Mirror(MirrorConfig(netdev=end, next=end, outdev=end, claims=end))
    inward = Redirector(RedirectorConfig(netdev=end, indev=end, standby=end, claims=end))
    outward = Redirector(RedirectorConfig(netdev=end, outdev=end, standby=end))
    told = (
        Promote(1),
        Promote(2),
        Demote(2),
        Demote(3),
        LanSay(corpus.FRAMES[0], 7),
        LanAsk(random.choice(corpus.FRAMES), 1e9),
        LanSay(write_claim(Stand("primary", 1, 1, 1, State.ALONE, echo_of=2), "colo", KEYS), 8, [KEYS.gate]),
        WorkerTable(1, ["a"], [0] * 1024),
    )
    now = 1.0
    streams = corpus.Streams(random)
    done = 0
    while done < inputs:
        now += random.random()
        batch = [any_frame(random, "g", streams) for _ in range(random.choice((1, 2, 8)))]
        if random.random() < 0.2:
            batch.append(claim(random))
        if random.random() < 0.1:
            batch.append(mutate.frame(random, claim(random), random.choice(corpus.FRAMES)))
        done += len(batch)
        for core, port in ((mirror, "netdev"), (inward, "indev"), (inward, "standby"), (outward, "netdev")):
            before = _dropped(core)
            outputs = core.receive(port, batch, now)
            # Each output gets every frame except for claims; or all are dropped and counted.
            claims = sum(is_claim(frame) for frame in batch) if "claims_heard" in core.counters else 0
            counts = [len(output.frames) for output in outputs if isinstance(output, Send)]
            check(all(len(batch) - claims <= count <= len(batch) for count in counts), counts, claims, len(batch))
            check(counts or _dropped(core) - before >= len(batch) - claims, port, core.counters)
            if random.random() < 0.05:
                core.tell(random.choice(told), now)
            if (due := core.deadline()) is not None and due <= now:
                core.on_timer(now)
                check((again := core.deadline()) is None or again > now, again, now)


def _dropped(core: Any) -> int:
    return sum(count for name, count in core.counters.items() if name.startswith("dropped."))
