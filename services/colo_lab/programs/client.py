"""Clients for the lab: each does one job, prints one line of JSON, and exits 0 only if every answer was right.

::

    http      --count 1000 [--keep-alive]   small requests
    download  --size N                      checked against the pattern as it arrives
    upload    --size N
    udp       --count N [--window 64]       echoes, as many in flight as the window
    rr        --count N [--udp]             one small request after another; latencies
    parallel  --count N --size N [--upload]   so many downloads (uploads) at once
    idle      --count N --pause S           opens N connections, waits, and asks once on each
    crowd     --connections 200 [--count 10 | --seconds S]   one request after another on each of many connections
    page      --path /statement             prints what it got
"""

import argparse
import http.client
import json
import os
import select
import socket
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from colo_lab.programs.pattern import first_difference, piece

CHUNK = 262_144
RESEND = 1.0
"""Seconds after which a datagram counts as lost and is sent again."""


def address(options: argparse.Namespace) -> str:
    """The guest's address."""
    return str(os.environ["COLO_GUEST6" if options.six else "COLO_GUEST"])


def connect(options: argparse.Namespace) -> socket.socket:
    """A connection to the guest, Nagle off."""
    sock = socket.create_connection((address(options), options.port), timeout=options.timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options.congestion:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion.encode())
    return sock


def begun(options: argparse.Namespace) -> None:
    """Tell whoever watches that the job is under way (`--announce`)."""
    if options.announce:
        sys.stdout.write(json.dumps({"job": options.job, "begun": True}) + "\n")
        sys.stdout.flush()
        options.announce = False


def pace(options: argparse.Namespace, done: int, began: float) -> None:
    """Wait while `done` bytes since `began` are more than `--rate` allows."""
    if options.rate:
        time.sleep(min(0.1, max(0.0, done / options.rate - (time.monotonic() - began))))


def turns(options: argparse.Namespace) -> Iterator[int]:
    """0, 1, … as often as `--count` says, or for as long as `--seconds` says."""
    until = time.monotonic() + options.seconds
    n = 0
    while time.monotonic() < until if options.seconds else n < options.count:
        yield n
        n += 1


def job_http(options: argparse.Namespace) -> dict[str, Any]:
    """Small requests, on one connection or on one each. With `--seconds` a failure is counted, not the end."""
    wrong, requests, longest = 0, 0, 0.0
    failures: Counter[str] = Counter()
    connection: http.client.HTTPConnection | None = None
    for n in turns(options):
        began = time.monotonic()
        try:
            if connection is None:
                connection = http.client.HTTPConnection(address(options), options.port, timeout=options.timeout)
            connection.request("GET", f"/page/{n}", headers={} if options.keep_alive else {"Connection": "close"})
            body = connection.getresponse().read()
            wrong += body != f"hello from /page/{n}\n".encode()
        except (OSError, http.client.HTTPException) as error:
            if not options.seconds:
                raise
            failures[type(error).__name__] += 1
        begun(options)
        requests += 1
        longest = max(longest, time.monotonic() - began)
        if connection is not None and (not options.keep_alive or failures):
            connection.close()
            connection = None
    return {
        "requests": requests,
        "failures": dict(failures),
        "longest_stall": round(longest, 3),
        "wrong": wrong + failures.total(),
    }


def job_page(options: argparse.Namespace) -> dict[str, Any]:
    """One page, printed before the line of JSON."""
    connection = http.client.HTTPConnection(address(options), options.port, timeout=options.timeout)
    connection.request("GET", options.path, headers={"Connection": "close"})
    answer = connection.getresponse()
    body = answer.read()
    sys.stdout.write(body.decode(errors="replace"))
    return {"bytes": len(body), "crc": f"{zlib.crc32(body):08x}", "wrong": int(answer.status != 200)}


def job_download(options: argparse.Namespace) -> dict[str, Any]:
    """One long answer, checked as it arrives."""
    with connect(options) as sock:
        sock.sendall(b"GET /bytes/%d HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n" % options.size)
        data = b""
        while b"\r\n\r\n" not in data:
            more = sock.recv(65536)
            if not more:
                return {"bytes": 0, "wrong": "closed in the header"}
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            return {"bytes": 0, "wrong": head.decode("latin-1")}
        got, crc, stall, last = 0, 0, 0.0, time.monotonic()
        start = last
        while True:
            where = first_difference(got, data)
            if where is not None:
                return {"bytes": got, "wrong": f"differs at {where}"}
            crc = zlib.crc32(data, crc)
            got += len(data)
            begun(options)
            if got >= options.size:
                break
            pace(options, got, start)
            last = time.monotonic()
            data = sock.recv(CHUNK)
            now = time.monotonic()
            stall, last = max(stall, now - last), now
            if not data:
                break
    return {"bytes": got, "crc": f"{crc:08x}", "longest_stall": round(stall, 3), "wrong": int(got != options.size)}


def job_upload(options: argparse.Namespace) -> dict[str, Any]:
    """One long request; the guest says what it got."""
    with connect(options) as sock:
        head = "PUT /sink HTTP/1.1\r\nHost: guest\r\nConnection: close\r\nContent-Length: "
        sock.sendall(f"{head}{options.size}\r\n\r\n".encode())
        offset, crc, stall, last = 0, 0, 0.0, time.monotonic()
        start = last
        while offset < options.size:
            part = piece(offset, min(CHUNK, options.size - offset))
            pace(options, offset, start)
            last = time.monotonic()
            sock.sendall(part)
            now = time.monotonic()
            stall, last = max(stall, now - last), now
            crc = zlib.crc32(part, crc)
            offset += len(part)
            begun(options)
        answer, last = b"", time.monotonic()
        while more := sock.recv(65536):
            answer += more
        stall = max(stall, time.monotonic() - last)
    body = answer.partition(b"\r\n\r\n")[2].decode()
    stall = max(stall, time.monotonic() - last)
    wrong = int(body != f"{options.size} {crc:08x} -\n")
    return {"bytes": offset, "longest_stall": round(stall, 3), "wrong": wrong, "answer": body.strip()}


def job_udp(options: argparse.Namespace) -> dict[str, Any]:
    """Keeps `window` datagrams in flight; a lost one is sent again and counted."""
    pending: dict[int, float] = {}
    lost, wrong, sent, done = 0, 0, 0, 0
    with socket.socket(socket.AF_INET6 if options.six else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.connect((address(options), options.port))
        sock.setblocking(False)
        deadline = time.monotonic() + options.timeout
        while done < options.count and time.monotonic() < deadline:
            while sent < options.count and len(pending) < options.window:
                sock.send(payload(sent))
                pending[sent] = time.monotonic()
                sent += 1
            if not select.select([sock], [], [], RESEND / 4)[0]:
                now = time.monotonic()
                for number in [number for number, at in pending.items() if now - at > RESEND]:
                    lost += 1
                    sock.send(payload(number))
                    pending[number] = now
                continue
            while True:
                try:
                    data = sock.recv(65536)
                except BlockingIOError:
                    break
                number = int.from_bytes(data[:8], "big")
                if data != payload(number):
                    wrong += 1
                elif pending.pop(number, None) is not None:
                    done += 1
    return {"echoes": done, "lost": lost, "wrong": wrong + (done != options.count)}


def payload(number: int) -> bytes:
    """Datagram `number`: its number, and 8 to 207 bytes that follow from it."""
    return number.to_bytes(8, "big") + bytes(piece(number * 31, 8 + number % 200))


def job_rr(options: argparse.Namespace) -> dict[str, Any]:
    """One small request after another."""
    if options.udp:
        sock = socket.socket(socket.AF_INET6 if options.six else socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((address(options), options.port))
        sock.settimeout(options.timeout)
    else:
        sock = connect(options)
    wrong, times = 0, []
    with sock:
        for n in turns(options):
            began = time.perf_counter()
            if options.udp:
                sock.send(payload(n))
                wrong += sock.recv(65536) != payload(n)
            else:
                sock.sendall(b"GET /rr/%d HTTP/1.1\r\n\r\n" % n)
                wrong += not sock.recv(65536).endswith(b"/rr/%d\n" % n)
            times.append(time.perf_counter() - began)
            begun(options)
    times.sort()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    return {
        "requests": len(times),
        "wrong": wrong,
        "p50_us": round(p50 * 1e6),
        "p99_us": round(p99 * 1e6),
        "longest_stall": round(times[-1], 3),
    }


def job_crowd(options: argparse.Namespace) -> dict[str, Any]:
    """Rounds: a request on every connection, then every answer. All connections stay open from first to last."""
    wrong, longest, answers = 0, 0.0, 0
    failures: Counter[str] = Counter()
    crowd = dict(enumerate(connect(options) for _ in range(options.connections)))
    for n in turns(options):
        began = time.monotonic()
        for step in ("ask", "hear"):
            for number, sock in list(crowd.items()):
                try:
                    if step == "ask":
                        sock.sendall(b"GET /crowd/%d/%d HTTP/1.1\r\n\r\n" % (number, n))
                        continue
                    data = b""
                    while not data.endswith(b"\n") or b"\r\n\r\n" not in data:
                        more = sock.recv(65536)
                        if not more:
                            raise ConnectionResetError("closed")
                        data += more
                    wrong += data.partition(b"\r\n\r\n")[2] != b"hello from /crowd/%d/%d\n" % (number, n)
                    answers += 1
                except OSError as error:
                    failures[type(error).__name__] += 1
                    crowd.pop(number).close()
        longest = max(longest, time.monotonic() - began)
        begun(options)
    for sock in crowd.values():
        sock.close()
    return {
        "connections": options.connections,
        "answers": answers,
        "failures": dict(failures),
        "longest_stall": round(longest, 3),
        "wrong": wrong + failures.total(),
    }


def job_parallel(options: argparse.Namespace) -> dict[str, Any]:
    """Many downloads or uploads at once, each checked."""
    job = job_upload if options.upload else job_download
    results: list[dict[str, Any]] = []

    def one() -> None:
        try:
            results.append(job(options))
        except OSError as error:
            results.append({"bytes": 0, "wrong": f"{type(error).__name__}: {error}"})

    threads = [threading.Thread(target=one) for _ in range(options.count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wrong = [str(result["wrong"]) for result in results if result["wrong"]]
    return {
        "bytes": sum(result["bytes"] for result in results),
        "longest_stall": max(result.get("longest_stall", 0.0) for result in results),
        "wrong": "; ".join(wrong[:5]) if wrong else 0,
        "connections": len(results),
    }


def job_idle(options: argparse.Namespace) -> dict[str, Any]:
    """Connections that wait, and are then asked."""
    wrong, began = 0, time.monotonic()
    socks = [connect(options) for _ in range(options.count)]
    for what in ("before", "after"):
        if what == "after":
            time.sleep(max(0.0, options.pause - (time.monotonic() - began)))
        for n, sock in enumerate(socks):
            sock.sendall(b"GET /%s/%d HTTP/1.1\r\n\r\n" % (what.encode(), n))
            answer = b""
            while not answer.endswith(f"/{what}/{n}\n".encode()):
                more = sock.recv(65536)
                if not more:
                    wrong += 1
                    break
                answer += more
        begun(options)
    for sock in socks:
        sock.close()
    return {"connections": len(socks), "wrong": wrong}


JOBS = {
    "crowd": job_crowd,
    "http": job_http,
    "page": job_page,
    "download": job_download,
    "upload": job_upload,
    "udp": job_udp,
    "rr": job_rr,
    "parallel": job_parallel,
    "idle": job_idle,
}


def main() -> None:
    """Do the job; a connection that breaks is a wrong answer, not a traceback."""
    parser = argparse.ArgumentParser(prog="python3 -m colo_lab.programs.client")
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.0, help="http, rr: for so long, instead of --count")
    parser.add_argument("--rate", type=float, default=0.0, help="download, upload: bytes a second, at most")
    parser.add_argument("--connections", type=int, default=200, help="crowd")
    parser.add_argument("--announce", action="store_true", help="say when the job is under way")
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--path", default="/statement")
    parser.add_argument("--congestion", metavar="NAME", help="congestion control, instead of the namespace's")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--pause", type=float, default=5)
    parser.add_argument("--keep-alive", action="store_true")
    parser.add_argument("--upload", action="store_true", help="parallel: uploads")
    parser.add_argument("--udp", action="store_true")
    parser.add_argument("-6", dest="six", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    try:
        result = JOBS[options.job](options)
    except (OSError, http.client.HTTPException) as error:
        result = {"wrong": f"{type(error).__name__}: {error}"}
    seconds = time.monotonic() - began
    result = {"job": options.job, "seconds": round(seconds, 3), **result}
    if "bytes" in result:
        result["mbit_s"] = round(result["bytes"] * 8 / seconds / 1e6)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    sys.exit(0 if result["wrong"] == 0 else 1)


if __name__ == "__main__":
    main()
