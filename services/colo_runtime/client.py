"""One request to a COLO frame and its answer: what `colo status`, the orders of an operator and the lab use."""

import os
import secrets
import time
from typing import Any

import zmq

from colo_proto.codec import decode, encode
from colo_proto.endpoint import Endpoint, parse_endpoint
from colo_proto.errors import ConfigError, StartError, WireError
from colo_proto.messages import Answer, Query
from colo_runtime.dialling import Endings, looks_up


class NoAnswerError(StartError):
    """The frame did not answer in time; the message says which endpoint was asked."""


def request(endpoint: Endpoint | str, query: Query, timeout: float) -> dict[str, Any]:
    """The body of the answer to `query`. `StartError` when the frame refuses, or does not answer."""
    answer = ask(endpoint, query, timeout)
    if not answer.ok:
        raise StartError(f"{endpoint}: {answer.error}")
    return answer.body


def ask(endpoint: Endpoint | str, query: Query, timeout: float = 2.0) -> Answer:
    """Send `query` to the frame at `endpoint` and wait for its answer.

    `NoAnswerError` when none has come after `timeout` seconds, or when what answers is not a frame.
    """
    where = parse_endpoint(endpoint) if isinstance(endpoint, str) else endpoint
    if not where.is_zmq:
        raise ConfigError(f"{where}: the control link of a frame is ipc:// or tcp://")
    context = zmq.Context()
    try:
        return _ask(context, where, query, timeout)
    finally:
        if looks_up(where):
            # A name server that does not answer would delay the end of the context.
            Endings().add(context)
        else:
            context.term()


def _ask(context: zmq.Context[zmq.Socket[bytes]], where: Endpoint, query: Query, timeout: float) -> Answer:
    until = time.monotonic() + timeout
    with context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.immediate = True
        socket.reconnect_ivl = 20
        socket.reconnect_ivl_max = 200
        socket.routing_id = b"ask-" + secrets.token_hex(8).encode()
        if where.scheme == "tcp":
            _use_keys(socket)
        try:
            socket.connect(where.url)
        except zmq.ZMQError as error:
            raise ConfigError(f"{where}: {error.strerror}") from None
        events = zmq.POLLOUT
        while (left := until - time.monotonic()) > 0:
            ready = socket.poll(max(1, int(left * 1000)), events)
            if ready & zmq.POLLOUT:
                socket.send(encode(query))
                events = zmq.POLLIN
            elif ready & zmq.POLLIN:
                try:
                    answer = decode(socket.recv())
                except WireError as error:
                    raise NoAnswerError(f"{where.url}: what answers is no frame ({error})") from None
                if isinstance(answer, Answer):
                    return answer
    raise NoAnswerError(f"{where.url}: no answer within {timeout:g} s; does a frame listen there?")


def _use_keys(socket: zmq.Socket[bytes]) -> None:
    """Take the keys from the environment, if it names any (COLO_CURVE_SECRET, COLO_CURVE_PEERS). The first key of the
    list is the frame's.
    """
    secret, peers = os.environ.get("COLO_CURVE_SECRET", ""), os.environ.get("COLO_CURVE_PEERS", "")
    if not (secret or peers):
        return
    from colo_runtime.curve import dial, load  # noqa: PLC0415  most requests go over ipc

    keys = load(secret, peers)
    if not keys.peers:
        raise ConfigError(f"--curve-peers {peers}: no key of a frame to ask")
    dial(socket, keys, next(iter(keys.peers)))
