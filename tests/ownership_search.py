"""Search for two writers or none: `PYTHONPATH=tests python -m ownership_search --examples N [--seed S] [--jobs J]`.

Hypothesis makes scripts of what happens to a pair (`SCRIPTS`), and `play` performs one in the world of
`ownership_world`. The unit tests do this one or two hundred times. This program does it any number of times, in pieces
that each have a seed.
"""

import argparse
import sys
import time
from collections import Counter
from multiprocessing import Pool

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from colo_proto.lan import Lan
from ownership_host import TICK, TTL
from ownership_world import World

PIECE = 250
"""Number of examples with one seed."""
STATES = ("any", "holding", "leaving", "alone", "fenced", "standby", "taking", "promoted")
LETTERS = st.sampled_from("ps")
WHO = st.sampled_from(["frame", "heartbeat", "writer", "all"])

EVENTS = st.one_of(
    st.tuples(st.just("link"), st.booleans()),
    st.tuples(st.just("lan"), st.booleans()),
    st.tuples(st.just("freeze"), LETTERS, WHO),
    st.tuples(st.just("thaw"), LETTERS, WHO),
    st.tuples(st.just("restart"), LETTERS),
    st.tuples(st.just("failover"), st.booleans()),
    st.tuples(st.just("resync")),
    st.tuples(st.just("start again")),
    st.tuples(st.just("new heartbeat"), LETTERS),
    # What an attacker on the LAN does.
    st.tuples(st.just("replay"), LETTERS, st.sampled_from(STATES), st.sampled_from([TICK, 0.07, 0.5])),
    st.tuples(st.just("replay"), LETTERS, st.sampled_from(STATES), st.sampled_from([TICK, 0.07, 0.5])),
    st.tuples(st.just("flood"), LETTERS, st.integers(0, 1000)),
    st.tuples(st.just("hold"), LETTERS),
    st.tuples(st.just("let go"), LETTERS),
    st.tuples(st.just("peace")),
)
VOTE_EVENTS = st.one_of(
    EVENTS,
    st.tuples(st.just("store"), st.sampled_from(["p", "s", "ps"]), st.booleans()),
    st.tuples(st.just("store"), st.sampled_from(["p", "s", "ps"]), st.booleans()),
    st.tuples(st.just("freeze"), LETTERS, st.just("vote")),
    st.tuples(st.just("thaw"), LETTERS, st.just("vote")),
    st.tuples(st.just("new vote"), LETTERS),
    st.tuples(st.just("cut both"), st.booleans()),
)
"""With a third vote: its store, its processes, and both networks at once."""
WAITS = st.sampled_from([0.03, 0.3, 1.2, 2.0, 3.1, 6.0])
HISTORIES = {
    "new": [],
    "other starts": [(("restart", "p"), 1.2), (("restart", "s"), 1.2), (("restart", "p"), 1.2)],
    "failed over": [(("failover", False), 2.0)],
    "failed over before": [(("failover", False), 2.0), (("start again",), 3.1)],
    "alone before": [(("link", False), 6.0), (("link", True), 1.2), (("start again",), 3.1)],
}
"""Events before a script begins, whose claims the attacker has recorded."""
SCRIPTS = st.tuples(
    st.sampled_from(sorted(HISTORIES)), st.lists(st.tuples(EVENTS, WAITS), max_size=12), st.booleans(), st.booleans()
)
"""A history, the events, whether the primary dies in the end, and whether the LAN heartbeats are `forgetful`."""
VOTE_SCRIPTS = st.tuples(
    st.sampled_from(sorted(HISTORIES)),
    st.lists(st.tuples(VOTE_EVENTS, WAITS), max_size=12),
    st.booleans(),
    st.just(False),
)
CHANGES = st.one_of(
    st.tuples(st.just("failover"), st.booleans(), LETTERS),
    st.tuples(st.just("failover"), st.just(True), LETTERS),
)
"""Where roles change: orders at either host."""
FAILOVER = st.sampled_from(["auto", "manual"])


def scripts(*, vote=False, roles="fixed"):
    """The scripts for such a pair."""
    if roles == "fixed":
        return VOTE_SCRIPTS if vote else SCRIPTS
    events = st.one_of(VOTE_EVENTS if vote else EVENTS, CHANGES)
    forgetful = st.just(False) if vote else st.booleans()
    return st.tuples(
        st.sampled_from(sorted(HISTORIES)), st.lists(st.tuples(events, WAITS), max_size=12), st.booleans(), forgetful
    )


DETECTION = 2.5
"""Seconds of silence after which the other host counts as dead."""


def play(script, failover, *, packed=True, vote=False, roles="fixed"):
    """Perform a script, in which both networks are cut at once only with a third vote. `World.check` looks for two
    writers every 10 ms. Once nothing is broken any more, one side must write, even while the attacker goes on. If the
    primary then dies, the secondary must write.
    """
    history, events, death, forgetful = script
    world = World(failover=failover, packed=packed, forgetful=forgetful, vote=vote, roles=roles).run(2.0)
    for event, wait in [*HISTORIES[history], *events]:
        step(world, *event)
        world.run(wait)
    for letter in "ps":
        world.let_go(letter)
        world.freeze(letter, frozen=False)
    world.link = world.lan = True
    world.store = {"p": True, "s": True}
    world.run(8.0)
    assert vote or not world.partitioned
    writers = [host for host in world.hosts.values() if host.could_write()]
    assert len(writers) == 1, (world.p.state, world.s.state)
    writer, other = writers[0], world.other(writers[0])
    if world.changing:
        assert (writer.leads, other.leads, other.state) == (True, False, "standby"), (writer.state, other.state)
        tables = [host.frame.side.table for host in (writer, other)]
        assert tables[0].workers == [writer.writer.id]
        assert tables[0] == tables[1]
    # A secondary that had the LAN and was fenced waits for an order.
    ready = other.state == "standby" and other.frame.side.ownership.leadership.promotable
    if death and failover == "auto" and ready:
        world.kill(writer.letter)
        world.run(max(DETECTION, TTL if vote else 0) + 0.6)
        assert other.could_write(), "its failover was put off"


def step(world, event, *args):
    """Let one event happen. Without a third vote one of the two networks always works; a LAN on which claims are held
    back does not.
    """
    match event, args:
        case "link", (on,):
            world.link = on or not world.lan or bool(world.held)
        case "lan", (on,):
            world.lan = on or not world.link
        case "freeze" | "thaw", (letter, who):
            host = world.hosts[letter]
            names = {"heartbeat": host.heartbeat.id, "writer": host.writer.id}.get(who, who)
            world.freeze(letter, *([] if who == "all" else [names]), frozen=event == "freeze")
        case "restart", (letter,):
            world.hosts[letter].start_frame()
        case "new heartbeat", (letter,):
            world.hosts[letter].lan = Lan(Counter())
        case "cut both", (cut,):
            world.link = world.lan = not cut
        case "store", (letters, on):
            world.store |= dict.fromkeys(letters, on)
        case "new vote", (letter,):
            world.hosts[letter].start_vote()
        case "start again", ():
            world.start_again()
        case "failover", (force,):
            if world.s.processes["frame"].up:
                world.ask("s", "failover", force=force)
        case "failover", (force, letter):
            if world.hosts[letter].processes["frame"].up:
                world.ask(letter, "failover", force=force)
        case "resync", ():
            for letter in "ps" if world.changing else "p":
                if world.hosts[letter].processes["frame"].up:
                    world.ask(letter, "resync")
        case "replay", (letter, state, every):
            frames = world.recorded("s" if letter == "p" else "p", *(() if state == "any" else (state,)))
            if frames:
                world.replay(letter, frames, every)
        case "flood", (letter, number):
            world.flood(letter, seed=number)
        case "hold", (letter,):
            if world.link:
                world.hold(letter)
        case "let go", (letter,):
            world.let_go(letter)
        case "peace", ():
            world.attack.clear()
        case _:
            raise AssertionError(f"no such event: {event}{args}")


def piece(argument):
    """Search with one seed, and return it with the error that was found, or with an empty text."""
    number, examples, vote, roles = argument

    @seed(number)
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink), print_blob=True,
    )  # fmt: skip
    @given(scripts(vote=vote, roles=roles), FAILOVER)
    def search(script, failover):
        play(script, failover, packed=False, vote=vote, roles=roles)

    try:
        search()
    except AssertionError as error:
        return number, "\n".join([str(error), *getattr(error, "__notes__", [])])
    return number, ""


def main(argv=None):
    parser = argparse.ArgumentParser(prog="ownership_search", description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=20000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the first piece")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args(argv)
    began, done, found = time.monotonic(), 0, 0
    pieces = -(-options.examples // PIECE)
    # Every other piece has a third vote; in every other pair of pieces roles change.
    kinds = [(n % 2 == 1, "change" if n % 4 >= 2 else "fixed") for n in range(pieces)]
    sizes = [min(PIECE, options.examples - n * PIECE) for n in range(pieces)]
    work = [(options.seed + n, sizes[n], *kinds[n]) for n in range(pieces)]
    with Pool(options.jobs) as pool:
        for (number, examples, *_), (_, error) in zip(work, pool.imap(piece, work), strict=True):
            done += examples
            if error:
                found += 1
                print(f"seed {number}: {error}", flush=True)
            print(f"{done} examples, {found} finds, {time.monotonic() - began:.0f} s", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
