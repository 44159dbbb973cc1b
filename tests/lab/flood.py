"""A client floods the guest with packets that it answers with ICMP errors, from many spoofed addresses of its own LAN.

    python flood.py SECONDS RATE KIND...

`protocol`: IP protocols that are not in use; `port`: UDP to closed ports; `one`: UDP to closed ports, all from one
address and with other bytes each time; `timestamp`: ICMP timestamp requests; `echo`: pings; `closed` and `open`: SYNs
to closed ports and to port 80. The first three and `echo` followed by `6` use IPv6. The client's interface gets
the spoofed addresses, so that the guest's neighbour requests are answered and its errors are really sent.
"""

import json
import os
import socket
import subprocess
import sys
import time
from struct import pack

GUEST, GUEST6 = os.environ["COLO_GUEST"], os.environ["COLO_GUEST6"]
SPOOFED = 200
V4 = [f"10.77.0.{number}" for number in range(20, 20 + SPOOFED)]
V6 = [f"fd77::{number:x}" for number in range(0x1000, 0x1000 + SPOOFED)]


def interface():
    """The name of the interface that the client's LAN is on."""
    shown = subprocess.run(["ip", "-j", "route", "get", GUEST], capture_output=True, check=True, text=True)
    return json.loads(shown.stdout)[0]["dev"]


def checksum(data):
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(source, size, protocol):
    """IPv6's pseudo-header (RFC 8200 §8.1)."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, GUEST6)
    return ends + pack("!II", size, protocol)


def ipv4(source, protocol, body, number):
    """A packet to the guest; the kernel fills total length and checksum in."""
    ends = socket.inet_aton(source) + socket.inet_aton(GUEST)
    return pack("!BBHHHBBH", 0x45, 0, 0, number & 0xFFFF, 0, 64, protocol, 0) + ends + body


def ipv6(source, protocol, body, number):
    """The same over IPv6. Nothing is left to the kernel."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, GUEST6)
    return pack("!IHBB", 6 << 28, len(body), protocol, 64) + ends + body


def udp(source, number, six, ports):
    """A datagram to a closed port. It has a checksum over IPv6, and none over IPv4."""
    data = b"flood %08d" % number
    head = pack("!HHHH", 1024 + number % ports, 30000 + number % ports, 8 + len(data), 0)
    if not six:
        return head + data
    found = checksum(pseudo(source, len(head + data), 17) + head + data) or 0xFFFF
    return head[:6] + pack("!H", found) + data


def syn(source, number, port):
    """A SYN, which comes from another port each time."""
    head = pack("!HHIIBBHHH", 1024 + number % 60000, port, number, 0, 0x50, 2, 65535, 0, 0)
    ends = socket.inet_aton(source) + socket.inet_aton(GUEST) + pack("!HH", 6, len(head))
    return head[:16] + pack("!H", checksum(ends + head)) + head[18:]


def packet(kind, number):
    """The `number`-th packet of this kind."""
    six = kind.endswith("6")
    kind = kind.removesuffix("6")
    source = (V6 if six else V4)[0 if kind == "one" else number % SPOOFED]
    wrap = ipv6 if six else ipv4
    if kind == "protocol":
        return wrap(source, 143 + number % 100, b"\0" * 24, number)
    if kind in {"port", "one"}:
        return wrap(source, 17, udp(source, number, six, 1 if kind == "one" else 1000), number)
    if kind in {"closed", "open"}:
        return wrap(source, 6, syn(source, number, 80 if kind == "open" else 30000 + number % 1000), number)
    if kind == "timestamp":
        body = pack("!BBHHHIII", 13, 0, 0, 7, number & 0xFFFF, number, 0, 0)
    else:
        body = pack("!BBHHH", 128 if six else 8, 0, 0, 7, number & 0xFFFF) + b"flood"
    total = checksum(pseudo(source, len(body), 58) + body if six else body)
    return wrap(source, 58 if six else 1, body[:2] + pack("!H", total) + body[4:], number)


def main():
    """Flood for this time at this rate, and print the number of packets sent."""
    seconds, rate, kinds = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    device = interface()
    batch = "".join(
        [f"addr add {one}/24 dev {device}\n" for one in V4] + [f"addr add {one}/64 dev {device} nodad\n" for one in V6]
    )
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
    raw = {
        four: socket.socket(socket.AF_INET6 if four == "6" else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        for four in ("4", "6")
    }
    raw["4"].setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    sent, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        due = int(passed * rate) - sent
        if due <= 0:
            time.sleep(0.0005)
        for _ in range(max(due, 0)):
            kind = kinds[sent % len(kinds)]
            six = kind.endswith("6")
            raw["6" if six else "4"].sendto(packet(kind, sent), (GUEST6, 0) if six else (GUEST, 0))
            sent += 1
    sys.stdout.write(json.dumps({"job": "flood", "sent": sent}) + "\n")


if __name__ == "__main__":
    main()
