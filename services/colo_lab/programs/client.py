"""Clients for the lab: each does one job, prints one line of JSON, and exits with 0 only if every answer was right.

::

    http      --count 1000 [--keep-alive]   small requests
    download  --size N                      checked against the pattern as it arrives
    upload    --size N
    udp       --count N [--window 64]       echoes, up to `window` of them in flight
    rr        --count N [--udp]             one small request after another; latencies
    parallel  --count N --size N [--upload]   this number of downloads (uploads) at once
    idle      --count N --pause S           opens N connections, waits, and sends one request on each
    crowd     --connections 200 [--count 10 | --seconds S]   one request after another on each of many connections
    page      --path /statement             prints the answer
"""

import argparse
import contextlib
import errno
import http.client
import json
import os
import socket
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from colo_lab.programs.pattern import first_difference, piece

CHUNK = 262_144
Job = Callable[[argparse.Namespace], dict[str, Any]]
RESEND = 1.0
"""Seconds after which a datagram counts as lost and is sent again."""


class Steps(list[float]):
    """How long each step of a job has taken, in seconds."""

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Measure the body as one step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.append(time.perf_counter() - began)

    def longest(self) -> dict[str, float]:
        """What the job's line of JSON says of it."""
        return {"longest_stall": round(max(self, default=0.0), 3)}


def address(options: argparse.Namespace) -> str:
    """The guest's address."""
    return str(os.environ["COLO_GUEST6" if options.six else "COLO_GUEST"])


def connect(options: argparse.Namespace) -> socket.socket:
    """A TCP connection to the guest, without Nagle's algorithm.

    While nobody answers for the guest's address (a cable is pulled), Linux gives up after three seconds: too soon for a
    client that was told to wait longer.
    """
    deadline = time.monotonic() + options.timeout
    while True:
        try:
            sock = socket.create_connection((address(options), options.port), timeout=options.timeout)
            break
        except OSError as error:
            if error.errno != errno.EHOSTUNREACH or time.monotonic() > deadline:
                raise
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options.congestion:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion.encode())
    return sock


def datagrams(options: argparse.Namespace) -> socket.socket:
    """A UDP socket that is connected to the guest."""
    sock = socket.socket(socket.AF_INET6 if options.six else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.connect((address(options), options.port))
    sock.settimeout(options.timeout)
    return sock


def web(options: argparse.Namespace) -> http.client.HTTPConnection:
    """An HTTP connection to the guest."""
    connection = http.client.HTTPConnection(address(options), options.port, timeout=options.timeout)
    connection.sock = connect(options)
    return connection


def ask(sock: socket.socket, path: str) -> None:
    """Send a small request."""
    sock.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())


def answered(sock: socket.socket, path: str) -> bool:
    """Wait for the answer to the request of this path. True when it is right."""
    body = f"hello from {path}\n".encode()
    expected = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    data = b""
    while len(data) < len(expected):
        more = sock.recv(65536)
        if not more:
            raise ConnectionResetError("closed")
        data += more
    return data == expected


def begun(options: argparse.Namespace) -> None:
    """With `--announce`: print once that the job is under way."""
    if options.announce:
        sys.stdout.write(json.dumps({"job": options.job, "begun": True}) + "\n")
        sys.stdout.flush()
        options.announce = False


def pace(options: argparse.Namespace, done: int, began: float) -> None:
    """Wait if `done` bytes since `began` are more than `--rate` allows."""
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
    """Small requests, on one connection or on one each. With `--seconds` a failure is counted and the job continues."""
    wrong, requests, steps = 0, 0, Steps()
    failures: Counter[str] = Counter()
    connection: http.client.HTTPConnection | None = None
    for n in turns(options):
        try:
            with steps.timed():
                connection = connection or web(options)
                connection.request("GET", f"/page/{n}", headers={} if options.keep_alive else {"Connection": "close"})
                body = connection.getresponse().read()
            wrong += body != f"hello from /page/{n}\n".encode()
        except (OSError, http.client.HTTPException) as error:
            if not options.seconds:
                raise
            failures[type(error).__name__] += 1
        begun(options)
        requests += 1
        if connection is not None and (not options.keep_alive or failures):
            connection.close()
            connection = None
    return {"requests": requests, "failures": dict(failures), **steps.longest(), "wrong": wrong + failures.total()}


def job_page(options: argparse.Namespace) -> dict[str, Any]:
    """One page, printed before the line of JSON."""
    connection = web(options)
    connection.request("GET", options.path, headers={"Connection": "close"})
    answer = connection.getresponse()
    body = answer.read()
    sys.stdout.write(body.decode(errors="replace"))
    return {"bytes": len(body), "crc": f"{zlib.crc32(body):08x}", "wrong": int(answer.status != 200)}


def job_download(options: argparse.Namespace) -> dict[str, Any]:
    """One long answer, checked as it arrives."""
    got, crc, steps = 0, 0, Steps()
    with contextlib.closing(web(options)) as connection:
        connection.request("GET", f"/bytes/{options.size}", headers={"Connection": "close"})
        answer = connection.getresponse()
        if answer.status != 200:
            return {"bytes": 0, "wrong": f"{answer.status} {answer.reason}"}
        start = time.monotonic()
        while got < options.size:
            with steps.timed():
                data = answer.read1(CHUNK)
            if not data:
                break
            where = first_difference(got, data)
            if where is not None:
                return {"bytes": got, "wrong": f"differs at {where}"}
            crc = zlib.crc32(data, crc)
            got += len(data)
            begun(options)
            pace(options, got, start)
    return {"bytes": got, "crc": f"{crc:08x}", **steps.longest(), "wrong": int(got != options.size)}


def job_upload(options: argparse.Namespace) -> dict[str, Any]:
    """One long request; the guest answers with what it has received."""
    sent, crc, steps = 0, 0, Steps()
    with contextlib.closing(web(options)) as connection:
        connection.putrequest("PUT", "/sink")
        connection.putheader("Connection", "close")
        connection.putheader("Content-Length", str(options.size))
        connection.endheaders()
        start = time.monotonic()
        while sent < options.size:
            part = piece(sent, min(CHUNK, options.size - sent))
            pace(options, sent, start)
            with steps.timed():
                connection.send(part)
            crc = zlib.crc32(part, crc)
            sent += len(part)
            begun(options)
        with steps.timed():
            answer = connection.getresponse().read().decode()
    wrong = int(answer != f"{options.size} {crc:08x} -\n")
    return {"bytes": sent, **steps.longest(), "wrong": wrong, "answer": answer.strip()}


def job_udp(options: argparse.Namespace) -> dict[str, Any]:
    """Keeps `window` datagrams in flight; a lost one is sent again and counted."""
    pending: dict[int, float] = {}
    lost, wrong, sent, done = 0, 0, 0, 0
    with datagrams(options) as sock:
        sock.settimeout(RESEND / 4)
        deadline = time.monotonic() + options.timeout
        while done < options.count and time.monotonic() < deadline:
            while sent < options.count and len(pending) < options.window:
                sock.send(payload(sent))
                pending[sent] = time.monotonic()
                sent += 1
            try:
                data = sock.recv(65536)
            except TimeoutError:
                now = time.monotonic()
                for number in [number for number, at in pending.items() if now - at > RESEND]:
                    lost += 1
                    sock.send(payload(number))
                    pending[number] = now
                continue
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
    wrong, steps = 0, Steps()
    with datagrams(options) if options.udp else connect(options) as sock:
        for n in turns(options):
            with steps.timed():
                if options.udp:
                    sock.send(payload(n))
                    right = sock.recv(65536) == payload(n)
                else:
                    ask(sock, f"/rr/{n}")
                    right = answered(sock, f"/rr/{n}")
            wrong += not right
            begun(options)
    steps.sort()
    return {
        "requests": len(steps),
        "wrong": wrong,
        "p50_us": round(steps[len(steps) // 2] * 1e6),
        "p99_us": round(steps[int(len(steps) * 0.99)] * 1e6),
        **steps.longest(),
    }


def job_crowd(options: argparse.Namespace, pause: float = 0.0) -> dict[str, Any]:
    """Rounds: a request on every connection, then every answer. All connections stay open from first to last.

    `pause`: seconds between two rounds.
    """
    wrong, answers, steps = 0, 0, Steps()
    failures: Counter[str] = Counter()
    crowd = dict(enumerate(connect(options) for _ in range(options.connections)))
    for n in turns(options):
        time.sleep(pause if n else 0.0)
        with steps.timed():
            for step in ("ask", "hear"):
                for number, sock in list(crowd.items()):
                    try:
                        if step == "ask":
                            ask(sock, f"/crowd/{number}/{n}")
                        else:
                            wrong += not answered(sock, f"/crowd/{number}/{n}")
                            answers += 1
                    except OSError as error:
                        failures[type(error).__name__] += 1
                        crowd.pop(number).close()
        begun(options)
    for sock in crowd.values():
        sock.close()
    return {
        "connections": options.connections,
        "answers": answers,
        "failures": dict(failures),
        **steps.longest(),
        "wrong": wrong + failures.total(),
    }


def job_parallel(options: argparse.Namespace) -> dict[str, Any]:
    """Many downloads or uploads at once, each checked."""
    job = job_upload if options.upload else job_download
    with ThreadPoolExecutor(options.count) as pool:
        results = list(pool.map(attempt, [job] * options.count, [options] * options.count))
    wrong = [str(result["wrong"]) for result in results if result["wrong"]]
    return {
        "bytes": sum(result.get("bytes", 0) for result in results),
        "longest_stall": max(result.get("longest_stall", 0.0) for result in results),
        "wrong": "; ".join(wrong[:5]) if wrong else 0,
        "connections": len(results),
    }


def job_idle(options: argparse.Namespace) -> dict[str, Any]:
    """Connections that send a request, wait, and send another one."""
    options.connections, options.count, options.seconds = options.count, 2, 0.0
    return job_crowd(options, options.pause)


def attempt(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Do the job. A connection that breaks is a wrong answer, not a traceback."""
    try:
        return job(options)
    except (OSError, http.client.HTTPException) as error:
        return {"wrong": f"{type(error).__name__}: {error}"}


_ALL = (job_crowd, job_http, job_page, job_download, job_upload, job_udp, job_rr, job_parallel, job_idle)
JOBS: dict[str, Job] = {job.__name__.removeprefix("job_"): job for job in _ALL}
"""By the name on the command line."""


def main() -> None:
    """Do the job that the command line names."""
    parser = argparse.ArgumentParser(prog="python3 -m colo_lab.programs.client")
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.0, help="http, rr, crowd: for this long, instead of --count")
    parser.add_argument("--rate", type=float, default=0.0, help="download, upload: bytes per second, at most")
    parser.add_argument("--connections", type=int, default=200, help="crowd")
    parser.add_argument("--announce", action="store_true", help="print when the job is under way")
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
    result = attempt(JOBS[options.job], options)
    seconds = time.monotonic() - began
    result = {"job": options.job, "seconds": round(seconds, 3), **result}
    if "bytes" in result:
        result["mbit_s"] = round(result["bytes"] * 8 / seconds / 1e6)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    sys.exit(0 if result["wrong"] == 0 else 1)


if __name__ == "__main__":
    main()
