"""The whole pair in one process (`inproc_pair`): frames of every kind, in every wiring, with one worker and several."""

from struct import pack

import pytest

import craft
from colo_proto.messages import Reason
from colo_proto.net import packet as p
from colo_proto.topology import SIDES, WIRINGS
from inproc_pair import ADDRESSES, Guest, World


@pytest.fixture(params=[(w, n) for w in WIRINGS for n in (1, 3)], ids=lambda param: f"{param[0]}-{param[1]}")
def world(request, bench):
    one = World(bench, *request.param)
    one.ready()
    return one


def requests(count, size):
    return [bytes([97 + n % 26]) * (size + n) for n in range(count)]


def datagrams(count):
    return [craft.udp(*ADDRESSES[4 + 2 * (n % 2)], 20_000 + n % 17, 53, pack("!I", n) * 5) for n in range(count)]


def test_a_few_hundred_frames_of_everything(world):
    asked = requests(12, 300)
    for n in range(6):
        world.call(4 + 2 * (n % 2), 40_000 + n, asked)
    for n in range(0, 300, 30):
        world.send(datagrams(300)[n : n + 30])
        world.turn()
    world.send([craft.arp_request("10.77.0.1", "10.77.0.2")])
    world.until(lambda: all(one.state == "closed" for one in world.callers.values()))
    world.until(lambda: len(world.secondary.seen) == len(world.from_client) and world.idle())
    # Every connection got every answer, whole and in order.
    for one in world.callers.values():
        assert one.got == [request.upper() for request in asked]
    assert world.primary.errors == world.secondary.errors == []
    # The client got exactly what the primary said, each flow in its order.
    assert sorted(world.to_client) == sorted(world.primary.said)
    for key in {p.dissect(frame).key for frame in world.primary.said}:
        assert [f for f in world.to_client if p.dissect(f).key == key] == [
            f for f in world.primary.said if p.dissect(f).key == key
        ]
    # Both guests saw the same frames, but for the numbers that the rewriter moved.
    assert world.primary.seen == world.from_client
    assert [p.dissect(f).key for f in world.secondary.seen] == [p.dissect(f).key for f in world.from_client]
    assert world.compares("checkpoints_wanted.payload") == world.compares("miscompares") == 0
    verdicts = world.verdicts()
    names = {"S1", "S4", "S5", "S6", "L1", "E2"}
    assert {name: verdicts[name].verdict for name in names} == dict.fromkeys(names, "held"), verdicts
    # Nothing went anywhere but on: counters of every link.
    for shell in world.shells.values():
        bad = ("dropped", "wire_errors", "lost")
        wrong = {k: n for k, n in shell.snapshot().counters.items() if n and any(word in k for word in bad)}
        # The mirror of a host that does not lead drops what the other one mirrors.
        known = ("secondary_dropped", "dropped.standby") if shell.id == "m0-s" else ("secondary_dropped",)
        assert {k for k in wrong if not k.startswith(known)} == set(), shell.id


@pytest.mark.parametrize("workers", [1, 3])
def test_two_symmetric_hosts_change_roles_twice_under_open_connections(bench, workers):
    world = World(bench, "symmetric", workers, rewriter={"revive": "off"})
    world.ready()
    rounds, ports = requests(12, 300), []
    for turn, side in enumerate(["primary", "secondary", "primary"]):
        if turn:
            world.order_failover(side)
        before = [world.compared(one) for one in SIDES]
        for caller in world.callers.values():
            caller.requests += rounds[turn * 4 : turn * 4 + 4]
            caller.stays = turn < 2
            world.send(caller.ask())
        for n in range(6):
            # Connections that begin now, beside those of the turns before.
            ports.append(40_000 + 100 * turn + n)
            world.call(4 + 2 * (n % 2), ports[-1], rounds[turn * 4 : turn * 4 + 4], stays=turn < 2)
        wanted = "open" if turn < 2 else "closed"
        world.until(
            lambda wanted=wanted: (
                all((c.state, len(c.got)) == (wanted, len(c.requests)) for c in world.callers.values())
                and len(world.primary.seen) == len(world.secondary.seen) == len(world.from_client)
                and world.idle()
            ),
            20.0,
        )
        grown = [world.compared(one) > was for one, was in zip(SIDES, before, strict=True)]
        assert grown == [one == side for one in SIDES], "the leader's workers compare"
    for caller in world.callers.values():
        assert caller.got == [request.upper() for request in caller.requests]
    assert len(world.callers) == len(ports) == 18
    assert world.primary.errors == world.secondary.errors == []
    assert world.compares("checkpoints_wanted.payload") == world.compares("miscompares") == 0


def test_all_workers_have_their_part(bench):
    world = World(bench, "faithful", 3)
    world.ready()
    world.send(datagrams(300))
    world.until(lambda: len(world.to_client) == 300)
    parts = [s.snapshot().counters["frames_primary"] for s in world.shells.values() if s.role == "compare"]
    assert sum(parts) == 300
    assert min(parts) > 0


@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_secondary_that_answers_otherwise(bench, wiring):
    def lie(port, answer):
        return answer.replace(b"B", b"#") if port == 40_001 else answer

    world = World(bench, wiring, 1, Guest(0x10000000, 77, lie))
    world.ready()
    asked = requests(10, 100)
    for n in range(3):
        world.call(4, 40_000 + n, asked)
    world.until(lambda: all(one.state == "closed" for one in world.callers.values()))
    # The client never saw the lie; the flow went on unprotected after one checkpoint, the others compared.
    for one in world.callers.values():
        assert one.got == [request.upper() for request in asked]
    assert world.compares("checkpoints_wanted.payload") == 1
    assert world.shells["frame-p"].snapshot().counters["checkpoints_done"] >= 1
    assert world.compares("released.unprotected") > 0
    last = world.shells["comp0"].snapshot().status["last"][-1]
    assert last["reason"] == Reason.PAYLOAD
    assert "10.77.0.2:80 > 10.77.0.1:40001" in last["flow"]
    # The first answer is 100 times A; the second, 101 times B, is where they part.
    assert last["offset"] == 100


@pytest.mark.parametrize("wiring", WIRINGS)
def test_drained_from_the_front_nothing_is_lost(bench, wiring):
    world = World(bench, wiring, 1)
    world.ready()
    world.send(datagrams(200))
    order = [name for name in ("m0", "f1", "rew0", "redire1", "f2", "comp0", "redire0") if name in world.shells]
    # The last frames may still be anywhere; each process goes once nothing comes to it any more.
    for name in order:
        before = -1
        while (now := sum(world.shells[name].snapshot().counters.values())) != before:
            before = now
            for _ in range(50):
                world.turn()
        world.shells[name].drain("test")
        world.until(lambda name=name: world.shells[name].done)
    world.until(lambda: len(world.to_client) == 200)
    assert sorted(world.to_client) == sorted(world.primary.said)
    assert world.verdicts()["S6"].verdict == "held"
    assert all(world.shells[name].snapshot().gauges.get("held", 0) == 0 for name in order)


def test_what_compare_holds_when_it_drains_is_dropped_by_reason(bench):
    world = World(bench, "lean", 1)
    world.secondary.answer = lambda _frame: []
    world.ready()
    world.send(datagrams(40))
    world.until(lambda: world.compares("frames_primary") == 40)
    world.shells["comp0"].drain("test")
    world.until(lambda: world.shells["comp0"].done)
    counters = world.shells["comp0"].snapshot().counters
    assert counters["dropped.shutdown"] == 40
    assert world.to_client == []
    assert world.verdicts()["S6"].verdict == "held"


@pytest.mark.parametrize("mode", ["shadow", "bypass"])
def test_modes_that_do_not_wait(bench, mode):
    world = World(bench, "lean", 1, compare={"mode": mode}, frame={"mode": mode})
    world.secondary.answer = lambda _frame: []
    world.ready()
    world.send(datagrams(50))
    world.until(lambda: len(world.to_client) == 50)
    assert world.compares("released.mode") == 50
