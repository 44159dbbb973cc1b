"""What a container is called, and who may use its sockets."""

import os
import socket
from collections import Counter

import pytest
import zmq

from colo_proto.endpoint import parse_endpoint
from colo_proto.errors import ConfigError
from colo_runtime.context import Context
from colo_runtime.reactor import Reactor
from colo_runtime.service import resolve, services
from colo_runtime.zmqsocket import PeerSocket


def named(flag):
    service = services()["compare"]
    return resolve(service, service.table(), {"id": flag}, {})


def test_the_hostname_stands_in_an_id(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "a6c4384")
    found = named("comp-{hostname}")
    assert found.common.id == "comp-a6c4384"
    assert found.config.id == "comp-a6c4384", "the core, too: it is the source of its requests for checkpoints"
    assert named("comp0").common.id == "comp0"


def test_a_long_hostname_is_refused_not_cut(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "h" * 64)
    with pytest.raises(ConfigError, match="64 bytes"):
        named("comp-{hostname}")


def test_an_ipc_socket_is_for_owner_and_group(tmp_path):
    before = os.umask(0o022)
    reactor = Reactor()
    try:
        with zmq.Context() as sockets:
            context = Context(reactor=reactor, zmq=sockets, id="x", incarnation=1, log=lambda *_, **__: None)
            where = parse_endpoint(f"ipc://{tmp_path}/a.sock?server=on")
            PeerSocket(context, where, "--listen", router=False, counters=Counter()).close()
            bound = PeerSocket(context, where, "--listen", router=False, counters=Counter())
            assert (tmp_path / "a.sock").stat().st_mode & 0o777 == 0o660
            bound.close()
        assert os.umask(0o022) == 0o022, "the process's own mask is as it was"
    finally:
        os.umask(before)
        reactor.close()
