"""Where captures come from: Debian's source package of tcpdump, a folder of your own, and traffic that is made here.

tcpdump's test captures (BSD licence) are 300 files of Ethernet, 60 with both directions: routing protocols, DNS, SSH,
MPTCP, OpenFlow, AFS, NTP, broken headers. None of them is in this repository; `apt-get source` verifies what it
downloads. `COLO_CAPTURES=FOLDER` adds the captures below a folder.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from struct import pack

PACKAGE = "tcpdump"
PATIENCE = 120
_SUFFIXES = (".pcap", ".pcapng", ".cap")


class UnavailableError(Exception):
    """These captures are not available here; the text says why."""


def folder():
    """Captures below `COLO_CAPTURES`."""
    where = os.environ.get("COLO_CAPTURES")
    return sorted(path for path in Path(where).rglob("*") if path.suffix in _SUFFIXES) if where else []


def public(directory):
    """The captures of tcpdump's source package, unpacked into `directory`."""
    if shutil.which("apt-get") is None:
        raise UnavailableError("no apt-get to fetch the captures of tcpdump's source package with")
    options = _source_options(directory)
    for command in (["update"], ["source", "--download-only", PACKAGE]):
        try:
            done = subprocess.run(
                ["apt-get", "-qq", *options, *command],
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"apt-get {command[0]} took longer than {PATIENCE} s") from None
    archives = list(directory.glob(f"{PACKAGE}_*.orig.tar.*"))
    if done.returncode or not archives:
        said = (done.stderr.strip() or "nothing fetched").splitlines()[-1]
        raise UnavailableError(f"apt-get source {PACKAGE}: {re.sub(r'https?://[^/ ]+', 'the mirror', said)[:120]}")
    found = []
    with tarfile.open(archives[0]) as archive:
        for member in archive:
            name = Path(member.name).name
            if member.isfile() and Path(name).suffix in _SUFFIXES and (file := archive.extractfile(member)):
                found.append(directory / name)
                found[-1].write_bytes(file.read())
    return sorted(found)


def _source_options(directory):
    """The sources of apt with `deb-src` instead of `deb`, and separate lists, so that the system is not changed."""
    parts = directory / "parts"
    for name in ("parts", "lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    for path in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]:
        if path.is_file() and path.suffix == ".sources":
            (parts / path.name).write_text(re.sub(r"(?m)^Types:.*$", "Types: deb-src", path.read_text()))
        elif path.is_file() and path.suffix == ".list":
            (parts / path.name).write_text(re.sub(r"(?m)^\s*deb\s", "deb-src ", path.read_text()))
    (directory / "none").touch()
    places = {
        "Etc::SourceList": directory / "none",
        "Etc::SourceParts": parts,
        "State::Lists": directory / "lists",
        "Cache": directory / "cache",
    }
    return [word for name, place in places.items() for word in ("-o", f"Dir::{name}={place}")]


# -- made here ----------------------------------------------------------------------------------

CLIENT4, GUEST4, CLIENT6, GUEST6 = "10.88.0.1", "10.88.0.2", "fd88::1", "fd88::2"


class Wire:
    """Two namespaces, a veth between them, and programs that are ended by their process ids."""

    def __init__(self, stack, directory):
        if os.geteuid() or not all(map(shutil.which, ("ip", "tcpdump", "curl"))):
            raise UnavailableError("root, ip, tcpdump and curl are needed to make captures")
        self.stack, self.directory = stack, directory
        tag = uuid.uuid4().hex[:8]
        self.client, self.guest = f"colo-c-{tag}", f"colo-g-{tag}"
        for space in (self.client, self.guest):
            self.ip("netns", "add", space)
            stack.callback(self.ip, "netns", "del", space)
        names = f"c{tag}", f"g{tag}"
        self.ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        both = ((self.client, names[0], CLIENT4, CLIENT6), (self.guest, names[1], GUEST4, GUEST6))
        for space, name, four, six in both:
            self.ip("link", "set", name, "netns", space)
            self.ip("-n", space, "link", "set", "lo", "up")
            self.ip("-n", space, "addr", "add", f"{four}/24", "dev", name)
            self.ip("-n", space, "addr", "add", f"{six}/64", "dev", name, "nodad")
            self.ip("-n", space, "link", "set", name, "up")
        self.interface = names[0]

    @staticmethod
    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def start(self, space, *command, **options):
        child = subprocess.Popen(["ip", "netns", "exec", space, *command], **options)
        self.stack.callback(self.end, child)
        return child

    @staticmethod
    def end(child):
        if child.poll() is None:
            # `ip netns exec` executes the program, so this is its process id.
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def ask(self, *command):
        subprocess.run(
            ["ip", "netns", "exec", self.client, *command], check=True, capture_output=True, timeout=PATIENCE
        )

    def listening(self, port):
        """Wait until a process in the guest's namespace listens."""
        end = time.monotonic() + PATIENCE
        probe = ["ip", "netns", "exec", self.guest, "ss", "-Hltun", f"sport = :{port}"]
        while not subprocess.run(probe, check=True, capture_output=True).stdout:
            assert time.monotonic() < end, f"nobody listens at {port}"
            time.sleep(0.05)


def own(directory):
    """Captures of web pages, a bulk transfer, names and pings, each over IPv4 and IPv6, made now."""
    made = []
    with ExitStack() as stack:
        wire = Wire(stack, directory)
        site = directory / "site"
        site.mkdir()
        (site / "page").write_bytes(bytes(range(256)) * 40)
        (site / "file").write_bytes(os.urandom(400_000))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = [sys.executable, "-m", "http.server", "8000", "--bind", "::", "--directory", str(site)]
        wire.start(wire.guest, *server, **quiet)
        wire.listening(8000)
        if shutil.which("iperf3"):
            wire.start(wire.guest, "iperf3", "-s", **quiet)
            wire.listening(5201)
        if shutil.which("dnsmasq"):
            names = ["dnsmasq", "-k", "-C", "/dev/null", "-x", "", "--no-resolv", "--no-hosts", "-A", "/test/10.1.2.3"]
            wire.start(wire.guest, *names, "-p", "5353", "-u", "root", **quiet)
            wire.listening(5353)
        for family, guest in (("4", GUEST4), ("6", GUEST6)):
            host = f"[{guest}]" if family == "6" else guest
            made.append(_captured(wire, f"web{family}", lambda host=host: _web(wire, host)))
            made.append(
                _captured(wire, f"ping{family}", lambda guest=guest: wire.ask("ping", "-c", "4", "-i", "0.1", guest))
            )
            if shutil.which("iperf3"):
                bulk = ("iperf3", "-c", guest, "-n", "600K")
                made.append(_captured(wire, f"up{family}", lambda bulk=bulk: wire.ask(*bulk)))
                made.append(_captured(wire, f"down{family}", lambda bulk=bulk: wire.ask(*bulk, "-R")))
                udp = ("iperf3", "-u", "-b", "0", "-l", "1200", "-n", "60K", "-R")
                made.append(_captured(wire, f"udp{family}", lambda udp=udp, guest=guest: wire.ask(*udp, "-c", guest)))
            if shutil.which("dnsmasq"):
                made.append(_captured(wire, f"dns{family}", lambda guest=guest: wire.ask(*_questions(guest))))
    return made


def _web(wire, host):
    for name in ("page", "missing", "file"):
        wire.ask("curl", "-s", "-o", "/dev/null", f"http://{host}:8000/{name}")


def _questions(guest):
    """Twenty queries for different names."""
    packets = [
        pack("!HHHHHH", n, 0x0100, 1, 0, 0, 0) + bytes((5,)) + b"host%d" % (n % 10) + b"\x04test\0\0\1\0\1"
        for n in range(20)
    ]
    family = int(socket.AF_INET6 if ":" in guest else socket.AF_INET)
    program = (
        "import socket\n"
        f"s = socket.socket({family}, socket.SOCK_DGRAM); s.settimeout(10); s.connect(({guest!r}, 5353))\n"
        f"for q in {packets!r}: s.send(q); s.recv(2000)\n"
    )
    return [sys.executable, "-c", program]


_ROOM = ("-B", "32768", "-s", "66000")
"""Kernel buffer in KiB. Each frame takes the space of a full one there, and none may be missing."""


def _captured(wire, name, traffic):
    """The capture of what `traffic` does."""
    path = wire.directory / f"{name}.pcap"
    command = ["tcpdump", "-i", wire.interface, "-w", str(path), "-U", "-Z", "root", *_ROOM]
    dump = wire.start(wire.client, *command, stderr=subprocess.PIPE)
    line = b""
    while b"listening on" not in line:
        line = dump.stderr.readline()
        assert line, "tcpdump ended"
    traffic()
    # The last frames may not be in the file yet: a marker frame after them shows when they are.
    mark = uuid.uuid4().bytes
    script = f"import socket; socket.socket(2, 2).sendto({mark!r}, ({GUEST4!r}, 9))"
    wire.ask(sys.executable, "-c", script)
    end = time.monotonic() + PATIENCE
    while mark not in path.read_bytes():
        assert time.monotonic() < end, "the capture does not grow"
        time.sleep(0.02)
    wire.end(dump)
    dump.stderr.close()
    return path
