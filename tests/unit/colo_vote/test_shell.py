"""The shell of `colo vote`: the thread that waits for the store, the frame at the other end, and our own mistakes."""

import pytest

from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.shell import FrameShell
from colo_proto.endpoint import parse_endpoint
from colo_runtime.options import CommonConfig
from colo_vote.config import VoteConfig
from colo_vote.shell import VoteShell
from colo_vote.store import Store, open_store
from colo_vote.vote import Vote
from etcd import Etcd, needs_etcd
from runtime_helpers import Log, free_port


def shell(directory, store, *, zmq_context=None, log=None):
    common = CommonConfig(id="vote", frame=f"ipc://{directory}/control.sock")
    config = VoteConfig(store="etcd://127.0.0.1:1", ttl=2, holder="here")
    return VoteShell(Vote(config), store, common, log or Log(), zmq_context)


@pytest.mark.slow
@needs_etcd
def test_a_frame_gets_the_key_through_it_and_hears_when_the_store_is_lost(bench):
    with Etcd([(free_port(), free_port())]) as etcd:
        core = Frame(FrameConfig(id="frame-p", peer=f"ipc://{bench.directory}/peer.sock", vote=True), 7)
        listen = parse_endpoint(f"ipc://{bench.directory}/control.sock?server=on")
        peer = parse_endpoint(f"ipc://{bench.directory}/peer.sock?server=on")
        frame = FrameShell(core, {"listen": listen, "peer": peer}, CommonConfig(id="frame-p"), Log())
        store = open_store(VoteConfig(store=etcd.endpoints, ttl=2))
        one = shell(bench.directory, store)
        both = (bench.add(frame), bench.add(one))
        votes = core.side.ownership.votes
        bench.until(lambda: votes.word(core.side.ownership.leadership.ran) == "held", both)
        assert one.waiting_for() == ()
        assert one.snapshot().gauges["held"] == 1
        etcd.kill(0)
        bench.until(lambda: votes.gauges()["vote_store"] == 0, both)
        assert any("the store" in why for why in one.waiting_for())


class Broken(Store):
    def look(self):
        raise ZeroDivisionError

    hold = release = look

    def close(self):
        pass


def test_a_mistake_of_ours_ends_the_process(bench):
    one = bench.add(shell(bench.directory, Broken()))
    try:
        bench.until(lambda: False, (one,))
    except ZeroDivisionError:
        return
    raise AssertionError("it went on")
