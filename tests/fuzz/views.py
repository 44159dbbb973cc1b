"""Packet views, fuzzed: dissection, headers, fragments, offloads, checksums, flows, sharding."""

from random import Random
from typing import Any

from tests.checksums import ip_checksum_ok, l4_checksum_ok

from colo_proto.frame import ETH, MAX_FRAME
from colo_proto.messages import (
    WorkerTable,
)
from colo_proto.net import flow as flows
from colo_proto.net import packet as p
from colo_proto.net.fragment import Reassembler
from colo_proto.net.offload import to_plain
from colo_proto.net.tcp import options, segment, syn_options, timestamps_at
from colo_proto.net.window import window_update
from colo_proto.shard import Splitter, inner_key

from . import corpus, mutate


def check(condition: Any, *what: Any) -> None:
    """An assertion that python -O does not remove."""
    if not condition:
        raise AssertionError(what)


def proto(random: Random, inputs: int) -> None:
    """Dissection, headers, fragments, offloads, checksums, flows, sharding."""
    assembler = Reassembler(16, 20000, 1.0)
    splitter = Splitter()
    splitter.table(WorkerTable(1, ["a", "b"], [n % 2 for n in range(1024)]))
    given = whole = dropped = 0
    for number in range(inputs):
        frame = mutate.frame(random, random.choice(corpus.FRAMES), random.choice(corpus.FRAMES))
        packet = p.dissect(frame)
        if packet.kind in (p.Kind.IP, p.Kind.FRAGMENT):
            check(ETH + 14 <= packet.l3 < packet.l4 <= packet.end <= len(frame), packet.l3, packet.l4, packet.end)
            flows.describe(packet.key)
            check(flows.reverse(flows.reverse(packet.key)) == packet.key)
            check(flows.slot(packet.key) == flows.slot(flows.reverse(packet.key)))
            ip_checksum_ok(frame)
            l4_checksum_ok(frame)
            inner_key(packet)
        if packet.kind == p.Kind.IP and packet.proto == p.PROTO_TCP:
            _tcp(frame, packet)
        if packet.kind == p.Kind.FRAGMENT:
            given += 1
            found = assembler.add(packet, number / 100)
            whole += len(found.frames) if found is not None else 0
            assembler.expire(number / 100)
            dropped += len(assembler.dropped())
        if random.random() < 0.1 or not frame[1] or frame[6] | frame[7] << 8 > 64:
            # A tiny gso_size means thousands of frames, so it is chosen rarely.
            for ethernet in to_plain(frame):
                check(len(ethernet) <= MAX_FRAME)
        check(sum(map(len, splitter.split([frame]).values())) == 1)
    left = len(assembler.clear())
    check(given == whole + dropped + left, given, whole, dropped, left)
    check(assembler.size == 0)


def _tcp(frame: bytes, packet: p.Packet) -> None:
    seg = segment(frame, packet.l4, packet.end)
    if seg is None:
        return
    check(packet.l4 + 20 <= seg.data <= seg.end == packet.end)
    for _, at, length in options(frame, packet.l4, seg.data):
        check(packet.l4 + 20 <= at < at + length <= seg.data)
    syn_options(frame, packet.l4, seg.data)
    stamps = timestamps_at(frame, packet.l4, seg.data)
    check(stamps is None or stamps + 8 <= seg.data)
    update = window_update(frame, packet.l4, seg.data, seg.seq, seg.ack, 7)
    check(p.dissect(update).kind == p.Kind.IP)
