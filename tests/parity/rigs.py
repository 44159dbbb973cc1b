"""Runs the same script against two filters: QEMU's own binary, and our real process.

::

            +-- pri, sec ----> QEMU -M none, colo-compare   ---- out, ntf --+
    script -|                                                               |--> what came out after each step
            +-- pri, sec ----> colo compare                 ---- out, ntf --+

No guest is needed: frames go in and out over Unix sockets in QEMU's framing. After each step the script waits for a
*marker* (a datagram of a flow of its own, sent into every input). A socket keeps the order, so everything before the
marker has been handled, and no sleep is necessary.
"""

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from struct import pack, unpack_from

import zmq

from colo_proto.chardev import encode
from colo_proto.codec import decode
from colo_proto.codec import encode as message_bytes
from colo_proto.frame import NO_OFFLOAD
from colo_proto.messages import CheckpointDone, Hello, Report, Welcome
from packets import Packet
from where import PYTHONPATH

QEMU = shutil.which("qemu-system-x86_64")
PATIENCE = 60.0
_BARE = ("-M", "none", "-nodefaults", "-display", "none", "-monitor", "none", "-serial", "none")


class Wire:
    """One chardev: frames (or messages) in QEMU's framing on a Unix socket."""

    def __init__(self, path, *, vnet=False, words=False):
        self.vnet, self.words = vnet, words
        self.rest = b""
        self.got = []
        self.socket = _connect(path)
        self.socket.setblocking(False)

    def send(self, frames):
        self.write(b"".join(encode(frames, vnet_hdr=self.vnet)))

    def say(self, word):
        # With the header option on, QEMU reads the second number from notify_dev too, but never writes it.
        self.write(pack("!II", len(word), 0) + word if self.vnet else pack("!I", len(word)) + word)

    def write(self, data):
        end = time.monotonic() + PATIENCE
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                select.select([], [self.socket], [], 0.1)
                assert time.monotonic() < end, "the filter does not read"

    def poll(self):
        """Read what is there."""
        with contextlib.suppress(BlockingIOError):
            while data := self.socket.recv(1 << 20):
                self.rest += data
        head = 8 if self.vnet and not self.words else 4
        while len(self.rest) >= 4:
            end = head + unpack_from("!I", self.rest)[0]
            if len(self.rest) < end:
                break
            one, self.rest = self.rest[head:end], self.rest[end:]
            self.got.append(one if self.words or self.vnet else NO_OFFLOAD + one)

    def until(self, condition, process):
        """Read until `condition()` is true. Returns its value."""
        end = time.monotonic() + PATIENCE
        while True:
            self.poll()
            if value := condition():
                return value
            assert process.poll() is None, f"the process ended: {process.returncode}"
            assert time.monotonic() < end, "nothing comes"
            select.select([self.socket], [], [], 0.05)

    def take(self):
        got, self.got = self.got, []
        return got


def _connect(path):
    end = time.monotonic() + PATIENCE
    while True:
        one = socket.socket(socket.AF_UNIX)
        try:
            one.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            one.close()
            assert time.monotonic() < end, f"nobody listens on {path}"
            time.sleep(0.01)
        else:
            return one


class Rig:
    """A process, its folder and its sockets. Ended by its own process id."""

    def __init__(self, command, environ=None):
        self.directory = tempfile.mkdtemp(prefix="colo-")
        self.wires = []
        with (Path(self.directory) / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command(self), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ
            )

    def path(self, name):
        return f"{self.directory}/{name}"

    def log(self):
        return Path(self.path("log")).read_text(errors="replace")

    def wire(self, name, **options):
        one = Wire(self.path(name), **options)
        self.wires.append(one)
        return one

    def close(self):
        self.process.kill()
        self.process.wait()
        for wire in self.wires:
            wire.socket.close()
        shutil.rmtree(self.directory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def qemu_compare(options, vnet):
    """QEMU's compare; options as ours."""

    def command(rig):
        ends = [f"socket,id={name},path={rig.path(name)},server=on,wait=off" for name in ("pri", "sec", "out", "ntf")]
        chardevs = [word for end in ends for word in ("-chardev", end)]
        more = "".join(f",{name}={value}" for name, value in options.items()) + (",vnet_hdr_support=on" if vnet else "")
        compare = f"colo-compare,id=c0,primary_in=pri,secondary_in=sec,outdev=out,notify_dev=ntf,iothread=io1{more}"
        return [QEMU, *_BARE, *chardevs, "-object", "iothread,id=io1", "-object", compare]

    return command


def colo(*arguments):
    return [sys.executable, "-P", "-m", "colo_cli", *arguments, "--log-format", "json"]


def environ():
    return {**os.environ, "PYTHONPATH": PYTHONPATH}


def our_compare(options, vnet):
    """Our compare in a process of its own, on the same sockets."""

    def command(rig):
        more = "&vnet_hdr=on" if vnet else ""
        ports = {"primary-in": "pri", "secondary-in": "sec", "outdev": "out", "notify-dev": "ntf"}
        ends = [
            word
            for port, name in ports.items()
            for word in (f"--{port}", f"chardev+unix://{rig.path(name)}?server=on{more}")
        ]
        limits = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return colo("compare", "--id", "comp0", *ends, *limits)

    return command


class CompareRig(Rig):
    """Either compare: feed it, and read what comes out."""

    def __init__(self, command, vnet=False):
        super().__init__(command, environ())
        self.pri, self.sec = self.wire("pri", vnet=vnet), self.wire("sec", vnet=vnet)
        self.out, self.ntf = self.wire("out", vnet=vnet), self.wire("ntf", vnet=vnet, words=True)
        self.markers = 0
        self.asked = 0
        """Number of DO_CHECKPOINT messages so far."""
        self._greet()
        self._knock()

    def _knock(self):
        """Output without a reader is lost, so send frames until the filter has noticed that `out` is connected."""
        arp = Packet(proto="arp").frame()
        end = time.monotonic() + PATIENCE
        while not self.out.got:
            assert time.monotonic() < end, f"nothing comes out: {self.log()}"
            self.pri.send([arp])
            select.select([self.out.socket], [], [], 0.05)
            self.out.poll()
        self.settled()

    def _greet(self):
        self.ntf.say(b"COLO_USERSPACE_PROXY_INIT")
        self.ntf.until(self._greeted, self.process)

    def _greeted(self):
        words = self.ntf.take()
        self.asked += words.count(b"DO_CHECKPOINT")
        return b"COLO_COMPARE_GET_XEN_INIT" in words

    def feed(self, side, frames):
        """Send frames into one input. Returns what came out until they were handled."""
        {"pri": self.pri, "sec": self.sec}[side].send(frames)
        return self.settled()

    def settled(self):
        """Send a marker through both inputs and wait for it; the frames that came out before it."""
        self.markers += 1
        name = b"marker %d" % self.markers
        marker = Packet(proto="udp", client="10.99.0.9", guest="10.99.0.2", ports=(9, 9), payload=name).frame()
        # QEMU would match a newer marker first, so there is only one at a time.
        self.pri.send([marker])
        self.sec.send([marker])
        self.out.until(lambda: self.out.got and self.out.got[-1].endswith(name), self.process)
        self.listen()
        return self.out.take()[:-1]

    def listen(self):
        """Read the messages on notify_dev."""
        self.ntf.poll()
        self._greeted()

    def checkpoint(self):
        """It is done; what came out."""
        self.ntf.say(b"COLO_CHECKPOINT")
        self._greet()
        return self.settled()


def qemu_rewriter(rig):
    """QEMU's rewriter between two sockets."""
    netdevs = []
    for at, name in enumerate(("client", "guest")):
        netdevs += ["-netdev", f"stream,id=n{at},server=on,addr.type=unix,addr.path={rig.path(name)}"]
        netdevs += ["-netdev", f"hubport,id=h{at},hubid=0,netdev=n{at}"]
    monitor = ["-qmp", f"unix:{rig.path('qmp')},server=on,wait=off"]
    return [QEMU, *_BARE, *monitor, *netdevs, "-object", "filter-rewriter,id=rw,netdev=n0,queue=all"]


def our_rewriter(rig):
    """Ours, with a control link on which the script plays the COLO frame."""
    ends = [
        word
        for name in ("indev", "netdev", "outdev")
        for word in (f"--{name}", f"chardev+unix://{rig.path(name)}?server=on")
    ]
    # The script is not a client that waits only for a limited time.
    return colo("rewriter", "--id", "rew0", *ends, "--hold-ms", "600000", "--frame", f"ipc://{rig.path('frame')}")


class RewriterRig(Rig):
    """Either rewriter. Subclasses say where frames of the client and of the guest go in and come out."""

    def _knock(self):
        """What is sent to nobody is lost: show frames to the filter until it has noticed both ways out."""
        lldp = Packet(proto="eth", kind=0x88CC, payload=b"knock").frame()
        end = time.monotonic() + PATIENCE
        while not (self.guest_out.got and self.client_out.got):
            assert time.monotonic() < end, f"nothing comes out: {self.log()}"
            for entrance, way_out in ((self.client_in, self.guest_out), (self.guest_in, self.client_out)):
                if not way_out.got:
                    entrance.send([lldp])
                    select.select([way_out.socket], [], [], 0.05)
                    way_out.poll()
        self.settled()

    def feed(self, side, frames):
        """Frames of one side; what came out, `(to the guest, to the client)`."""
        {"client": self.client_in, "guest": self.guest_in}[side].send(frames)
        return self.settled()

    def settled(self):
        for entrance, way_out in ((self.client_in, self.guest_out), (self.guest_in, self.client_out)):
            self.markers += 1
            name = b"marker %d" % self.markers
            entrance.send(
                [Packet(proto="udp", client="10.99.0.9", guest="10.99.0.2", ports=(9, 9), payload=name).frame()]
            )
            way_out.until(lambda out=way_out, end=name: any(one.endswith(end) for one in out.got), self.process)
        return tuple(
            [one for one in way_out.take() if b"marker" not in one] for way_out in (self.guest_out, self.client_out)
        )


class QemuRewriter(RewriterRig):
    def __init__(self):
        super().__init__(qemu_rewriter)
        self.markers = 0
        self.client_in = self.client_out = self.wire("client")
        self.guest_in = self.guest_out = self.wire("guest")
        self._knock()

    def checkpoint(self):
        """The event that a checkpoint sends to filters, by the monitor."""
        with contextlib.closing(_connect(self.path("qmp"))) as monitor:
            monitor.settimeout(PATIENCE)
            lines = monitor.makefile("rwb")
            lines.readline()
            for command in (b"qmp_capabilities", b"xen-colo-do-checkpoint"):
                lines.write(b'{"execute":"%s"}\n' % command)
                lines.flush()
                while b'"return"' not in (line := lines.readline()):
                    assert b'"error"' not in line, line
        return self.settled()


class OurRewriter(RewriterRig):
    def __init__(self):
        super().__init__(our_rewriter, environ())
        self.markers = self.epoch = 0
        self.client_in, self.client_out = self.wire("indev"), self.wire("outdev")
        self.guest_in = self.guest_out = self.wire("netdev")
        self.context = zmq.Context()
        self.frame = self.context.socket(zmq.ROUTER)
        self.frame.linger = 0
        self.frame.bind(f"ipc://{self.path('frame')}")
        self._knock()

    def checkpoint(self):
        self.epoch += 1
        self.welcomed = False
        self._hear(lambda message: isinstance(message, Hello | Report))
        self.frame.send_multipart([b"rew0", message_bytes(Welcome(self.epoch - 1))])
        self.frame.send_multipart([b"rew0", message_bytes(CheckpointDone(self.epoch, state_copied=True))])
        self._hear(lambda message: isinstance(message, Report) and message.status["checkpoints"] == self.epoch)
        return self.settled()

    def _hear(self, wanted):
        end = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < end, "the rewriter says nothing"
            if self.frame.poll(1000):
                message = decode(self.frame.recv_multipart()[-1])
                if wanted(message):
                    return

    def close(self):
        self.frame.close()
        self.context.term()
        super().close()
