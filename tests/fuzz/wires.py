"""Fuzzes what crosses links: messages, byte streams, captures, texts."""

from collections import Counter
from contextlib import suppress
from dataclasses import MISSING, fields
from io import BytesIO
from random import Random
from struct import pack
from typing import Any

import msgpack

from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.peer import PEER
from colo_proto import codec, messages
from colo_proto.chardev import ChardevParser, WordParser, encode
from colo_proto.core import Tell
from colo_proto.endpoint import parse_endpoint
from colo_proto.errors import ConfigError, WireError
from colo_proto.frame import ETH, MAX_FRAME, MIN_FRAME
from colo_proto.messages import LanHeard
from colo_proto.pcapng import Capture, Shown
from colo_proto.pcapng import encode as pcapng
from colo_proto.replay import ReplayReceiver, ReplaySender
from colo_proto.rules import parse_rules
from colo_rewriter.config import RewriterConfig
from colo_rewriter.rewriter import Rewriter
from colo_runtime.capture import CaptureWriter, read_capture

from . import corpus, mutate
from .cores import Books, claim
from .views import check


def _default(name: str, hint: Any) -> Any:
    text = str(hint)
    for kind, value in (
        ("dict", {}),
        ("list[int]", [0, 1]),
        ("list", ["comp0"]),
        ("bool", True),
        ("str", name),
        ("int", 3),
    ):
        if kind in text:
            return value
    return 1.0


def _messages() -> list[tuple[Any, ...]]:
    """One message of each kind, as the array that is sent."""
    found: list[tuple[Any, ...]] = [
        (1, codec.KIND_BATCH, "mirror0", 5, 0, 0, 1.5, corpus.FRAMES[:3]),
        *[
            (1, kind, "mirror0", 5, 0)
            for kind in (codec.KIND_HELLO, codec.KIND_ACK, codec.KIND_RESET, codec.KIND_START)
        ],
        (1, codec.KIND_CONTROL, "worker_table", {"version": 1, "workers": ["a"], "slots": [0] * 1024}),
    ]
    for name, kind in messages.TYPES.items():
        body = {
            one.name: one.default if one.default is not MISSING else _default(one.name, one.type)
            for one in fields(kind)
        }
        found.append((1, codec.KIND_CONTROL, name, body))
    return found


MESSAGES = _messages()
PACKED = [msgpack.packb(message, use_bin_type=True) for message in MESSAGES]


class _Everybody:
    """The receiver of decoded messages."""

    def __init__(self, random: Random) -> None:
        self.books = Books(random)
        self.rewriter = Rewriter(RewriterConfig(outdev="ipc:///run/x?server=on&split=on"))
        self.frames = [Frame(FrameConfig(side=side, peer="ipc:///run/p"), 7) for side in ("primary", "secondary")]
        self.sender = ReplaySender("mirror0", 5, 100000, Counter(), source=False)
        self.receiver = ReplayReceiver(Counter())

    def hear(self, random: Random, value: Any, now: float) -> None:
        if isinstance(value, codec.Batch):
            self.receiver.batch(value, now)
            self.books.take(self.books.core.receive(random.choice(("primary_in", "secondary_in")), value.frames, now))
            self.rewriter.receive(random.choice(("indev", "netdev")), value.frames, now)
            self.sender.push(value.frames)
            if self.sender.due() is not None:
                self.sender.sent()
        elif isinstance(value, codec.LinkHello | codec.LinkAck):
            with suppress(WireError):
                (self.sender.hello if isinstance(value, codec.LinkHello) else self.sender.ack)(
                    value.incarnation, value.next
                )
        elif isinstance(value, codec.LinkStart | codec.LinkReset):
            self.receiver.answer(value, now)
        else:
            self.books.take(self.books.core.tell(value, now))
            self.rewriter.tell(value, now)
            for frame in self.frames:
                outputs = frame.hear(random.choice((PEER, "comp0", "m0", "\udcff")), value, now)
                outputs += frame.on_timer(now)
                for output in outputs:
                    if isinstance(output, Tell):
                        codec.encode(output.message)


def wire(random: Random, inputs: int) -> None:
    """Messages damaged as structures and as bytes. Those that can be decoded go to their receivers."""
    everybody = _Everybody(random)
    now = 1.0
    for _ in range(inputs):
        if random.random() < 0.6:
            value = random.choice(MESSAGES)
            for _ in range(1 + int(random.random() * 2)):
                value = mutate.structure(random, value)
            data = mutate.packed(value)
        else:
            data = mutate.blob(random, random.choice(PACKED))
        now += 0.01
        if random.random() < 0.02:
            data = codec.encode(LanHeard(claim(random)))
            now += random.choice((0.0, 1.0, 30.0))
        try:
            decoded = codec.decode(data)
        except WireError:
            continue
        again = codec.encode_batch(*decoded) if isinstance(decoded, codec.Batch) else codec.encode(decoded)
        twice = codec.decode(again)
        check(
            again == (codec.encode_batch(*twice) if isinstance(twice, codec.Batch) else codec.encode(twice)),
            "what was decoded is encoded and decoded again",
        )
        everybody.hear(random, decoded, now)
    everybody.books.look()
    everybody.books.take(everybody.books.core.drain(now))
    everybody.books.look()
    for frame in everybody.frames:
        frame.status(now)


def chardev(random: Random, inputs: int) -> None:
    """QEMU's framing with damage, in pieces of any size; and the messages of notify_dev."""
    vnet = random.random() < 0.5
    counters: Counter[str] = Counter()
    parser, words = ChardevParser(counters, vnet_hdr=vnet), WordParser(vnet_hdr=vnet)
    for _ in range(inputs):
        stream = b"".join(encode(random.choices(corpus.FRAMES, k=1 + random.getrandbits(1)), vnet_hdr=vnet))
        if random.random() < 0.8:
            stream = mutate.blob(random, stream)
        if random.random() < 0.1:
            stream = pack("!I", random.choice((0, 0, 13, 14, 69632, 69633, 0xFFFFFFFF))) + stream
        at = 0
        while at < len(stream):
            piece = stream[at : at + 1 + int(random.random() * 2000)]
            at += len(piece)
            for frame in parser.feed(piece):
                check(MIN_FRAME <= len(frame) <= MAX_FRAME, len(frame))
            words.feed(piece)
            parser = _checked(parser) or ChardevParser(counters, vnet_hdr=vnet)
            words = _checked(words) or WordParser(vnet_hdr=vnet)
            check(parser.partial <= 69632 + 8, parser.partial)


def _checked(parser: Any) -> Any:
    try:
        parser.check()
    except WireError:
        return None
    return parser


def captures(random: Random, inputs: int) -> None:
    """Capture files, pcap and pcapng, damaged."""
    file = BytesIO()
    writer = CaptureWriter(file)
    for frame in random.choices(corpus.FRAMES, k=3):
        writer.write(frame[ETH:], 1.5)
    shown = tuple(Shown(n % 2, 1.0, frame, "comment") for n, frame in enumerate(random.choices(corpus.FRAMES, k=3)))
    seeds = (file.getvalue(), pcapng(Capture(("primary", "secondary"), shown, "verdict")))
    for seed in seeds:
        check(len(list(read_capture(BytesIO(seed)))) == 3)
    for _ in range(inputs):
        data = mutate.blob(random, random.choice(seeds))
        try:
            for frame in read_capture(BytesIO(data)):
                check(type(frame) is bytes)
        except WireError:
            pass


_TEXTS = (
    "pass tcp guest-port 3389\ncompare tcp port 80 mask /Date: [^\\r\\n]{29}/256 mask 3:40 # why",
    "shadow udp guest 10.0.0.0/8 client fd00::/8 vlan 5",
    "tcp://127.0.0.1:9000?server=on&split=on",
    "chardev+unix:///run/colo/x?vnet_hdr=on&vnet_hdr_len=12",
    "tap://lan?netdev=/run/colo/netdev.sock",
)


def texts(random: Random, inputs: int) -> None:
    """Rules and endpoints, which operators write: only a `ConfigError` may be raised."""
    for _ in range(inputs):
        text = mutate.blob(random, random.choice(_TEXTS).encode()).decode(errors="replace")
        for read in (parse_rules, parse_endpoint):
            with suppress(ConfigError):
                read(text)
