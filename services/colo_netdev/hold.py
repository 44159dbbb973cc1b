"""`colo netns`: holds the network namespace that it runs in, and offers it to netdev.

The namespace of a guest or of a client LAN that lives in containers needs a process that keeps it while the others are
restarted. This process needs no privilege: it opens two sockets and passes them to netdev (`netns.Namespace`).
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

import click

from colo_proto.errors import ConfigError, WireError
from colo_proto.netdev import RefusedError, Request, decode_ok, encode_request
from colo_runtime.descriptors import close_all, receive
from colo_runtime.logs import FORMATS, LEVELS, configure
from colo_runtime.options import NETDEV_SOCKET

RETRY: Final = 0.1
RETRY_MAX: Final = 1.0
"""Seconds between two attempts to reach netdev: the first pause, and the longest."""
ANSWER_TIMEOUT: Final = 10.0
"""Seconds that netdev has for an answer; making its first tap takes it a while."""


def offer_netns(sock: socket.socket, name: str, who: str) -> None:
    """Offer the namespace that this process is in. The offer counts until the connection ends."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inet,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as inet6,
    ):
        socket.send_fds(sock, [encode_request(Request("netns", name, who))], [inet.fileno(), inet6.fileno()])
    data, fds = receive(sock)
    close_all(fds)
    decode_ok(data)


def hold(name: str, path: str, who: str, log: Callable[..., None], pause: Callable[[float], None]) -> NoReturn:
    """Offer the namespace as `name` at netdev's socket `path`, and again whenever netdev was away."""
    wait, complaint = RETRY, ""
    while True:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.settimeout(ANSWER_TIMEOUT)
                sock.connect(path)
                offer_netns(sock, name, who)
                log("info", "netns.offered", netns=name, netdev=path)
                wait, complaint = RETRY, ""
                sock.settimeout(None)
                sock.recv(1)
                log("info", "netdev.lost", netdev=path)
        except (OSError, WireError, RefusedError) as error:
            if isinstance(error, RefusedError) and not error.retry:
                raise ConfigError(f"--name {name}: {error}") from None
            log("debug" if str(error) == complaint else "info", "netns.waiting", error=str(error))
            complaint = str(error)
        pause(wait)
        wait = min(2 * wait, RETRY_MAX)


@click.command("netns")
@click.option("--name", required=True, metavar="NAME", help="What the taps call it: --tap …,netns=@NAME")
@click.option(
    "--netdev", "path", default=NETDEV_SOCKET, envvar="COLO_NETDEV", show_default=True, metavar="PATH",
    help="Socket of netdev.  [COLO_NETDEV]",
)  # fmt: skip
@click.option("--log-level", type=click.Choice(LEVELS), default="info", envvar="COLO_LOG_LEVEL", show_default=True)
@click.option("--log-format", type=click.Choice(FORMATS), default="auto", envvar="COLO_LOG_FORMAT", show_default=True)
def netns(name: str, path: str, log_level: str, log_format: str) -> None:
    """Hold this network namespace and offer it to netdev, until stopped."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    log = configure(log_level, log_format, role="netns", id=name, pid=os.getpid())
    hold(name, path, f"netns-{name}"[:64], log, time.sleep)
