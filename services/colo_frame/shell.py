"""The shell around the COLO frame's core. Other than a filter, the core hears and tells messages, and passes no frames.

::

    processes of this host  --DEALER, routing id = process id-->  ROUTER --listen  --> hear(id, message)
    `colo status`, the lab  --DEALER, random routing id-------->                   <-- Tell(message, to=id)
    the other host's frame  <==========================>  --peer                   --> hear("peer", message)

`Tell.to` is a process id, `"peer"`, or `"*"`: everybody who has said Hello and is still there.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

import zmq

from colo_frame.frame import Frame
from colo_frame.ownership import CHANGED
from colo_frame.peer import PEER
from colo_frame.registry import EVERYBODY
from colo_frame.transitions import WRITING
from colo_proto.codec import decode_message, encode
from colo_proto.core import Log, Output, Tell
from colo_proto.endpoint import Endpoint
from colo_proto.errors import ConfigError, WireError
from colo_proto.messages import Hello, Message
from colo_runtime.counting import Snapshot
from colo_runtime.hook import Hook, parse
from colo_runtime.options import CommonConfig
from colo_runtime.reactor import READ, WRITE, Timer
from colo_runtime.rulesfile import load_rules
from colo_runtime.secretfile import load_secrets, read_secrets
from colo_runtime.service import Resolved
from colo_runtime.shell import LogFn, Shell, incarnation
from colo_runtime.zmqsocket import PeerSocket, whole

MAX_QUEUED: Final = 256
"""Messages that are kept for the peer while it does not take them. Beyond that the oldest is dropped."""
MAX_KNOWN: Final = 2048
"""Processes that get what is sent to everybody: twice as many as the frame knows, because some may have left."""
BURST: Final = 64
"""Messages that are handled before other sockets have their turn."""


class FrameShell(Shell):
    """See the module. `endpoints` are `listen` and, if there is another host, `peer`."""

    def __init__(
        self,
        core: Frame,
        endpoints: Mapping[str, Endpoint],
        common: CommonConfig,
        log: LogFn,
        *,
        zmq_context: zmq.Context[Any] | None = None,
    ) -> None:
        super().__init__("frame", common, log, zmq_context)
        self.context.incarnation = core.side.incarnation or self.context.incarnation
        self.core = core
        self._endpoints = endpoints
        for name, endpoint in endpoints.items():
            if not endpoint.is_zmq or endpoint.split or endpoint.reliable:
                raise ConfigError(f"--{name} {endpoint}: a plain ipc:// or tcp:// endpoint is expected")
        # The frame can only bind this endpoint, so `?server=on` need not be written.
        self._listen = Endpoint(endpoints["listen"].scheme, endpoints["listen"].address, server=True)
        self._router: PeerSocket | None = None
        self._peer: PeerSocket | None = None
        self._peer_id: bytes | None = None
        self._peer_heard = float("-inf")
        self._peer_timer: Timer | None = None
        self._to_peer: deque[bytes] = deque(maxlen=MAX_QUEUED)
        self._known: dict[str, None] = {}
        self._hook: Hook | None = None

    def open_links(self) -> None:
        """Bind the control link, and open the link to the peer."""
        config = self.core.side.config
        if config.on_change:
            self.reactor.on_wake = self._woken
            argv = parse("--on-change", config.on_change)
            self._hook = Hook(argv, config.on_change_timeout / 1000, self.reactor.wake)
        counted: Any = {"counters": self.counters, "prefix": "control."}
        self._router = PeerSocket(self.context, self._listen, "--listen", router=True, **counted)
        self._router.watch(self._local)
        peer = self._endpoints.get("peer")
        if peer is not None:
            self._peer = PeerSocket(self.context, peer, "--peer", router=peer.server, **counted)
            if not peer.server:
                self._peer_id = b""
            self._peer.watch(self._remote)
            self._check_peer()

    def close_links(self) -> None:
        """Close both links."""
        if self._hook is not None:
            self._hook.close()
        if self._peer_timer is not None:
            self._peer_timer.cancel()
        for one in (self._router, self._peer):
            if one is not None:
                one.close()

    def _check_peer(self) -> None:
        """Look every second whether the other frame is heard, as it should be all the time. If not, dial it anew: its
        place at the server may have been given to another connection.
        """
        assert self._peer is not None
        self._peer.check_silence(self._peer_heard)
        self._peer_timer = self.reactor.call_later(1.0, self._check_peer)

    # -- in -------------------------------------------------------------------------------------

    def _local(self, _events: int) -> None:
        assert self._router is not None
        for routing_id, message in self._received(self._router):
            # Routing ids that are no text (libzmq makes them up for anonymous clients) come back as the same bytes.
            sender = routing_id.decode(errors="surrogateescape")
            if sender in (PEER, EVERYBODY):
                continue
            outputs = self.core.hear(sender, message, time.monotonic())
            if isinstance(message, Hello) and any(type(one) is Tell and one.to == sender for one in outputs):
                self._note_known(sender)
            self._do(outputs)

    def _note_known(self, sender: str) -> None:
        """It was welcomed, so it gets what is sent to everybody as well."""
        self._known.pop(sender, None)
        self._known[sender] = None
        if len(self._known) > MAX_KNOWN:
            # Drop the one that introduced itself longest ago. A process that has left stays here until something is
            # sent to it.
            del self._known[next(iter(self._known))]

    def _remote(self, events: int) -> None:
        assert self._peer is not None
        if events & WRITE:
            self._flush_peer()
        if not events & READ:
            return
        for routing_id, message in self._received(self._peer):
            self._peer_id, self._peer_heard = routing_id, time.monotonic()
            self._do(self.core.hear(PEER, message, self._peer_heard))

    def _received(self, link: PeerSocket) -> Iterator[tuple[bytes, Message]]:
        """The messages that wait at one of the links, with the routing ids of their senders."""
        for _ in range(BURST):
            got = link.receive()
            if got is None:
                return
            try:
                message = decode_message(whole(got[1]))
            except WireError as error:
                self.counters["control.wire_errors." + error.reason] += 1
                sender = PEER if link is self._peer else got[0].decode(errors="surrogateescape")
                # Log one line for all strangers, because a stranger can use any number of names.
                who = sender if sender in self._known or sender == PEER else ""
                self.context.complain("message.refused", who, port="listen", error=str(error), sender=sender[:64])
            else:
                self.counters["control.received"] += 1
                yield got[0], message

    # -- out ------------------------------------------------------------------------------------

    def _do(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Tell):
                self._tell(output.message, output.to)
            elif isinstance(output, Log):
                self.log(output.level, output.event, **output.fields)
                if output.event == CHANGED and self._hook is not None:
                    self._hook.change(self._variables(output.fields))

    def _variables(self, change: Mapping[str, Any]) -> dict[str, str]:
        """What the operator's command is told of a change of leadership."""
        config, after = self.core.side.config, change["after"]
        return {
            "COLO_ID": self.id,
            "COLO_PAIR": config.pair,
            "COLO_SIDE": config.side,
            "COLO_BEFORE": change["before"],
            "COLO_AFTER": after,
            "COLO_ON": change["on"],
            "COLO_FENCE": str(change["fence"]),
            "COLO_WRITES": "1" if after in WRITING else "0",
        }

    def _woken(self) -> None:
        """The operator's command has ended, or somebody reads the metrics."""
        self._give_snapshot()
        for one in self._hook.take() if self._hook is not None else ():
            good = one.status == 0
            self.counters["hooks_run" if good else "hooks_failed"] += 1
            self.log(
                "info" if good else "error", "hook.ended", after=one.variables["COLO_AFTER"], status=one.status,
                seconds=round(one.seconds, 3), timed_out=one.timed_out, output=one.output,
            )  # fmt: skip

    def _tell(self, message: Message, to: str | None) -> None:
        data = encode(message)
        if to == PEER:
            if len(self._to_peer) == MAX_QUEUED:
                self.counters["control.dropped.peer_queue_full"] += 1
            self._to_peer.append(data)
            self._flush_peer()
            return
        for one in list(self._known) if to == EVERYBODY or to is None else [to]:
            self._send(one, data)

    def _send(self, to: str, data: bytes) -> None:
        assert self._router is not None
        try:
            taken = self._router.send(to.encode(errors="surrogateescape"), data)
        except ConnectionError:
            self._known.pop(to, None)
            self.counters["control.dropped.gone"] += 1
            self.core.unreachable(to, time.monotonic())
            return
        self.counters["control.sent" if taken else "control.dropped.queue_full"] += 1

    def _flush_peer(self) -> None:
        if self._peer is None or self._peer_id is None:
            return
        try:
            while self._to_peer and self._peer.send(self._peer_id, self._to_peer[0]):
                self._to_peer.popleft()
                self.counters["control.sent"] += 1
        except ConnectionError:
            # The peer is gone. It will be heard again when it is back.
            self._peer_id = None
        waiting = self._to_peer and self._peer_id is not None
        self._peer.interest(READ | WRITE if waiting else READ)

    # -- the core -------------------------------------------------------------------------------

    def core_deadline(self) -> float | None:
        """When the core wants `core_timer` to be called."""
        return self.core.deadline()

    def core_timer(self, now: float) -> None:
        """Do what is due."""
        self._do(self.core.on_timer(now))

    def begin_drain(self) -> None:
        """Do nothing more: the processes work on without a frame."""
        self._look_ready()

    def drained(self) -> bool:
        """At once, because the next frame says again what is lost."""
        return True

    def snapshot(self) -> Snapshot:
        """Everything that is counted, for metrics and the status."""
        waiting = self.waiting_for()
        status = self.core.status(time.monotonic()) | {
            "ready": not waiting,
            "pid": os.getpid(),
            "known": sorted(self._known),
        }
        gauges = dict(self.core.gauges())
        if self._hook is not None:
            self.counters["hooks_skipped"] = self._hook.skipped
        counters = dict(self.core.counters) | self.counters
        # A pair that is not protected is no reason to restart the frame, so it is ready all the same.
        note = f"the pair is {self.core.side.judging.verdict.text}"
        return Snapshot("frame", self.id, counters, gauges, status, waiting, note)


def check(found: Resolved) -> None:
    """The frames of a pair that has keys have a secret as well: by that they know each other on the client LAN."""
    if not found.config.listen:
        raise ConfigError("--listen: required (where the processes of this host find the frame)")
    if found.config.on_change:
        parse("--on-change", found.config.on_change)
    if found.config.vote and not found.endpoints.get("peer"):
        raise ConfigError("--vote: needs a --peer; a side without another one has nobody to vote about")
    if found.config.pair_secret:
        read_secrets(found.config.pair_secret)
    elif found.endpoints.get("peer") and found.keys:
        raise ConfigError("--pair-secret: required with keys (colo keygen --pair makes it, one file for both hosts)")


def make(found: Resolved, log: LogFn, zmq_context: zmq.Context[Any] | None = None) -> FrameShell:
    """The frame in its shell, whose links are not open yet."""
    core = found.service.core_class()(found.config, incarnation=incarnation(), now=time.monotonic())
    shell = FrameShell(core, found.endpoints, found.common, log, zmq_context=zmq_context)
    shell.files.append(lambda: load_rules(found.config.rules, core))
    shell.files.append(lambda: load_secrets(found.config.pair_secret, core.use_secrets))
    return shell
