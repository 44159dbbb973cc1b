"""The shell of `colo vote`. Requests to the store may block, so a thread makes them, one at a time.

::

    core.next() --> queue --> thread: store.hold(), look(), release() --> done --> wake the loop --> core.answered()
"""

import queue
import socket
import threading
import time
from collections import deque
from dataclasses import replace
from typing import Any

import zmq

from colo_proto.core import Log, Output, Tell
from colo_proto.endpoint import parse_endpoint
from colo_proto.errors import ConfigError
from colo_proto.messages import Drain, Message
from colo_runtime.control import Control
from colo_runtime.counting import Snapshot
from colo_runtime.options import CommonConfig
from colo_runtime.service import HOSTNAME, Resolved
from colo_runtime.shell import LogFn, Shell
from colo_vote.config import VoteConfig
from colo_vote.store import Holder, Store, StoreError, open_store
from colo_vote.vote import HOLD, RELEASE, Vote


class VoteShell(Shell):
    """See the module."""

    def __init__(
        self,
        core: Vote,
        store: Store,
        common: CommonConfig,
        log: LogFn,
        zmq_context: zmq.Context[Any] | None = None,
    ) -> None:
        super().__init__("vote", common, log, zmq_context)
        self.core = core
        self._store = store
        self._requests: queue.SimpleQueue[tuple[str, str, str]] = queue.SimpleQueue()
        self._done: deque[Holder | StoreError | None] = deque()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self.control = Control(parse_endpoint(common.frame), self.context, "vote", self._hear, self.snapshot)

    def open_links(self) -> None:
        """Start the thread that speaks to the store."""
        self.reactor.on_wake = self._woken
        self._thread.start()

    def _work(self) -> None:
        """The thread: one request after the other. An error that is no `StoreError` is ours; it ends the process."""
        while True:
            request, name, alone = self._requests.get()
            if not request:
                self._store.close()
                return
            done: Holder | StoreError | BaseException | None = None
            try:
                if request == HOLD:
                    done = self._store.hold(name, alone)
                elif request == RELEASE:
                    self._store.release(name)
                else:
                    done = self._store.look()
            except BaseException as error:  # noqa: BLE001 - the loop raises it
                done = error
            self._done.append(done)  # type: ignore[arg-type]
            if not self._closed:
                self.reactor.wake()

    def _woken(self) -> None:
        self._give_snapshot()
        while self._done:
            done, now = self._done.popleft(), time.monotonic()
            if isinstance(done, StoreError):
                self._do(self.core.failed(str(done), now))
            elif isinstance(done, BaseException):
                raise done
            else:
                self._do(self.core.answered(done, now))
            self._look_ready()

    def _hear(self, message: Message) -> None:
        if isinstance(message, Drain):
            self.drain("the frame asks")
            return
        self._do(self.core.tell(message, time.monotonic()))

    def _do(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Tell) and self.control is not None:
                self.control.tell(output.message)
            elif isinstance(output, Log):
                self.log(output.level, output.event, **output.fields)

    def core_deadline(self) -> float | None:
        """When a request to the store is due."""
        return None if self.draining else self.core.deadline()

    def core_timer(self, now: float) -> None:
        """Make the request that is due."""
        request = self.core.next(now)
        if request:
            self._requests.put((request, self.core.name, self.core.alone))

    def begin_drain(self) -> None:
        """Make no more requests. The key is not given up: the frame may count on it until it ends by itself."""

    def drained(self) -> bool:
        """At once."""
        return True

    def close_links(self) -> None:
        """End the thread, once the request that is under way is over."""
        self._requests.put(("", "", ""))
        if self._thread.is_alive():
            self._thread.join(self.core.config.ttl / 2)

    def waiting_for(self) -> tuple[str, ...]:
        """Why the process is not ready."""
        error = self.core.error
        return (*super().waiting_for(), *([f"the store: {error}"] if error else []))

    def snapshot(self) -> Snapshot:
        """Everything that is counted, for metrics and the status."""
        waiting, now = self.waiting_for(), time.monotonic()
        counters = dict(self.core.counters) | self.own_counters()
        status = self.core.status(now) | {"ready": not waiting, "waiting_for": list(waiting)}
        return Snapshot("vote", self.id, counters, self.core.gauges(now), status, waiting)


def check(found: Resolved) -> None:
    """What the options leave open: a frame to speak to, and a connection that nobody else can read."""
    config: VoteConfig = found.config
    if not found.common.frame:
        raise ConfigError("--frame: required (the frame of this host, whose vote it is)")
    open_store(config).close()
    hosts = [one.rpartition(":")[0].strip("[]") for one in config.store.partition("://")[2].split(",")]
    outside = [one for one in hosts if one not in ("127.0.0.1", "::1", "localhost")]
    if outside and not config.store_ca and not found.common.insecure:
        raise ConfigError(f"--store {outside[0]}: another host needs TLS (--store-ca), or --insecure")


def make(found: Resolved, log: LogFn, zmq_context: zmq.Context[Any] | None = None) -> VoteShell:
    """The process in its shell, which is not open yet."""
    config = replace(found.config, holder=found.config.holder.replace(HOSTNAME, socket.gethostname()))
    return VoteShell(Vote(config), open_store(config), found.common, log, zmq_context)
