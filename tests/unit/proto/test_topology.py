import re
from dataclasses import replace
from pathlib import Path

import pytest

from colo_netdev.config import parse_allow
from colo_proto.endpoint import parse_endpoint
from colo_proto.errors import ConfigError
from colo_proto.topology import (
    HWM_BATCHES,
    PENDING_BYTES,
    REPLAY_BYTES,
    SIDES,
    TAP_QUEUE,
    WIRINGS,
    Site,
    links,
    plan,
    processes,
)

COMBINATIONS = [(wiring, workers) for wiring in WIRINGS for workers in (1, 2, 4)]
ROOT = Path(__file__).parents[3]


def site(side):
    return Site(
        directory=f"/run/{side}",
        bind="10.0.0.1" if side == "primary" else "10.0.0.2",
        peer="10.0.0.2" if side == "primary" else "10.0.0.1",
        taps={"lan": f"lan-{side[0]},bridge=br0", "guest": f"guest-{side[0]},netns=7"},
        extra={"compare": {"mode": "shadow"}, "m0": {"log-level": "debug"}},
    )


def specs(wiring, workers):
    return {spec.id: spec for side in SIDES for spec in plan(side, wiring, workers, site(side))}


def endpoints(spec):
    return {name: parse_endpoint(v) for name, v in spec.options.items() if isinstance(v, str) and "://" in v}


@pytest.mark.parametrize(("wiring", "workers"), COMBINATIONS)
def test_every_process_is_planned_once_and_joined_to_a_frame(wiring, workers):
    planned = specs(wiring, workers)
    assert list(planned) == [p.id for p in processes(wiring, workers)]
    for spec in planned.values():
        ends = endpoints(spec)
        control = {"frame": "listen", "compare": "notify-dev"}.get(spec.role, "frame")
        assert ends[control].address == f"/run/{spec.side}/control.sock"
        assert ends[control].server == (spec.role == "frame")


@pytest.mark.parametrize(("wiring", "workers"), COMBINATIONS)
def test_every_zmq_address_has_one_binder_and_somebody_who_connects(wiring, workers):
    binders, users = {}, {}
    for spec in specs(wiring, workers).values():
        for name, end in endpoints(spec).items():
            if end.is_zmq:
                (binders if end.server else users).setdefault(end.url, []).append((spec.id, name))
    assert set(binders) == set(users)
    assert all(len(ends) == 1 for ends in binders.values())


@pytest.mark.parametrize(("wiring", "workers"), COMBINATIONS)
def test_both_ends_agree_on_reliability(wiring, workers):
    by_url = {}
    for spec in specs(wiring, workers).values():
        for end in endpoints(spec).values():
            if end.is_zmq:
                by_url.setdefault(end.url, set()).add(end.reliable)
    assert all(len(values) == 1 for values in by_url.values())
    assert {True} in by_url.values()


@pytest.mark.parametrize(("wiring", "workers"), COMBINATIONS)
def test_cross_host_links_are_tcp_and_the_others_are_not(wiring, workers):
    for link in links(wiring, workers):
        assert (link.scheme == "tcp") == (link.source.side != link.target.side)


@pytest.mark.parametrize(("wiring", "workers"), COMBINATIONS)
def test_a_client_frame_reaches_both_guests_and_only_the_primary_answer_reaches_the_client(wiring, workers):
    # Follow the ports: what a process may send on, once a frame came in at a port.
    through = {
        "mirror": {"netdev": ["next", "outdev"]},
        "redirector": {"netdev": ["outdev"], "indev": ["netdev"]},
        "rewriter": {"indev": ["netdev"], "lead-in": ["netdev"], "netdev": ["outdev", "lead-out"]},
        "compare": {"primary-in": ["outdev"], "secondary-in": []},
    }
    roles = {p.id: p.role for p in processes(wiring, workers)}
    table = [link for link in links(wiring, workers) if link.name not in ("control", "peer")]

    def reached(tap, side):
        seen, todo = set(), [link for link in table if link.source.is_tap and link.source.port == tap]
        todo = [link for link in todo if link.source.side == side]
        while todo:
            link = todo.pop()
            seen.add((link.target.process, link.target.port, link.target.side))
            if not link.target.is_tap:
                outs = through[roles[link.target.process]][link.target.port]
                todo += [
                    new
                    for new in table
                    if new.source.process == link.target.process
                    and new.source.port in outs
                    and (new.target.process, new.target.port, new.target.side) not in seen
                ]
        return seen

    if wiring == "symmetric":
        for here, there, own in (("primary", "secondary", ""), ("secondary", "primary", "-s")):
            frames = reached("lan", here)
            assert {("", "guest", here), ("", "guest", there)} <= frames
            assert not {("", "lan", here), ("", "lan", there)} & frames
            answers = reached("guest", here)
            assert ("", "lan", here) in answers
            assert ("", "lan", there) not in answers
            for n in range(workers):
                assert (f"comp{n}{own}", "primary-in", here) in answers
                assert (f"comp{n}{own}", "secondary-in", here) in reached("guest", there)
        return
    assert {("", "guest", "primary"), ("", "guest", "secondary")} <= reached("lan", "primary")
    assert ("", "lan", "primary") not in reached("lan", "primary")
    assert ("", "lan", "primary") in reached("guest", "primary")
    secondary = reached("guest", "secondary")
    assert ("", "lan", "primary") not in secondary
    for n in range(workers):
        assert (f"comp{n}", "secondary-in", "primary") in secondary
        assert (f"comp{n}", "primary-in", "primary") in reached("guest", "primary")


def test_the_lean_wiring_runs_only_what_is_needed():
    lean, faithful = specs("lean", 1), specs("faithful", 1)
    assert [i for i in lean if lean[i].role == "redirector"] == []
    assert [i for i in specs("lean", 2) if i.startswith("redire")] == ["redire1"]
    assert set(lean) < set(faithful)
    assert endpoints(lean["comp0"])["primary-in"].scheme == "tap"
    assert endpoints(lean["comp0"])["outdev"].address == "lan-p"


def test_both_hosts_of_the_symmetric_wiring_are_the_same_but_for_ids_and_addresses():
    primary, secondary = (plan(side, "symmetric", 2, site(side)) for side in SIDES)
    assert [spec.role for spec in primary] == [spec.role for spec in secondary]
    assert [spec.id for spec in primary] == ["netdev-p", "frame-p", "m0", "rew0", "comp0", "comp1"]
    assert [spec.id for spec in secondary] == ["netdev-s", "frame-s", "m0-s", "rew0-s", "comp0-s", "comp1-s"]
    for mine, its in zip(primary, secondary, strict=True):
        assert mine.options.keys() - {"log-level"} == its.options.keys()
    frames = {spec.id: spec.options for spec in (*primary, *secondary) if spec.role == "frame"}
    assert frames["frame-p"]["workers"] == "comp0,comp1"
    assert frames["frame-s"]["workers"] == "comp0-s,comp1-s"
    assert frames["frame-p"]["peer"] == "tcp://10.0.0.1:9005?server=on"
    rewriter = next(spec for spec in secondary if spec.role == "rewriter")
    assert rewriter.argv == [
        "rewriter",
        *("--id", "rew0-s"),
        *("--indev", "tcp://10.0.0.1:9003?reliable=on"),
        *("--outdev", "tcp://10.0.0.2:9004?server=on&split=on"),
        *("--lead-in", "ipc:///run/secondary/lead0.sock"),
        *("--netdev", "tap://guest-s?netdev=/run/secondary/netdev.sock"),
        *("--lead-out", "ipc:///run/secondary/compare0.sock?server=on&split=on"),
        *("--frame", "ipc:///run/secondary/control.sock"),
    ]
    mirror = next(spec for spec in secondary if spec.role == "mirror")
    assert mirror.options["roles"] == "change"
    assert mirror.options["outdev"] == "tcp://10.0.0.2:9003?server=on&reliable=on"


def test_command_lines():
    mirror = specs("faithful", 1)["m0"]
    assert mirror.argv == [
        "mirror",
        *("--id", "m0"),
        *("--netdev", "tap://lan-p?netdev=/run/primary/netdev.sock"),
        *("--next", "tap://guest-p?netdev=/run/primary/netdev.sock"),
        *("--outdev", "tcp://10.0.0.1:9003?server=on&reliable=on"),
        *("--claims", "tap://lan-p?netdev=/run/primary/netdev.sock"),
        *("--frame", "ipc:///run/primary/control.sock"),
        *("--log-level", "debug"),
    ]
    netdev = specs("lean", 1)["netdev-s"].argv
    assert netdev[netdev.index("--tap") :][:4] == ["--tap", "lan-s,bridge=br0", "--tap", "guest-s,netns=7"]
    assert specs("lean", 1)["comp0"].options["mode"] == "shadow"


def test_wrong_plans_are_named():
    with pytest.raises(ConfigError, match="sideways"):
        processes("sideways")
    with pytest.raises(ConfigError, match="workers"):
        processes("lean", 0)


def pattern(link):
    """Who is joined to whom, and the sockets of either end."""
    if link.scheme == "tap":
        return "-"
    if link.split:
        return "split by flow (ROUTER, DEALER)"
    many = {"compare_out": "many to one (DEALER, DEALER)", "control": "many to one (DEALER, ROUTER)"}
    return many.get(link.name, "one to one (DEALER, DEALER)")


def bound(link):
    """The bound, in batches and bytes, and what happens there: two cells."""
    if link.scheme == "tap":
        return f"{TAP_QUEUE} frames in the kernel | the kernel drops (`tap_dropped`): loss on a wire"
    if link.name in ("control", "peer"):
        return f"{HWM_BATCHES} messages | dropped, and sent again a second later"
    text = f"{HWM_BATCHES} batches, then {PENDING_BYTES >> 20} MiB"
    if link.reliable:
        return f"{text}, replay {REPLAY_BYTES >> 20} MiB | oldest leave the ring; a gap demands a checkpoint"
    return f"{text} | dropped, counted `queue_full`; the guest retransmits"


def end_text(end):
    if end.is_tap:
        return f"tap `{end.port}` ({end.side})"
    name = re.sub("^comp[0-9]+", "comp*", end.process)
    return f"{name} `{end.port}`"


def rows(wiring):
    """The table of links of one wiring, for ARCHITECTURE.md. All workers have the same rows, so one stands for all."""
    found = ["| link | from | to | over | bound by | pattern | at most | then |", "|---|---|---|---|---|---|---|---|"]
    for link in links(wiring):
        if wiring == "symmetric" and link.source.side == "secondary" and link.target.side == "secondary":
            # It is there on the primary host as well, under the names of that host.
            continue
        source, target = end_text(link.source), end_text(link.target)
        if link.name == "control":
            source, target = "every process `frame` (compare: `notify-dev`)", "frame `listen`"
        words = {"cross-host": link.scheme == "tcp", "reliable": link.reliable, "leased": link.leased}
        over = ", ".join([link.scheme, *(word for word, so in words.items() if so)])
        binder = {"source": source, "target": target, "-": "-"}[link.bound].split(" `")[0]
        found.append(f"| {' | '.join((link.name, source, target, over, binder, pattern(link), bound(link)))} |")
    return dict.fromkeys(found)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_the_documents_hold_the_table(wiring):
    text = (ROOT / "ARCHITECTURE.md").read_text()
    missing = [row for row in rows(wiring) if row not in text]
    assert not missing, "paste these rows into ARCHITECTURE.md:\n" + "\n".join(missing)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("wiring", "workers"), COMBINATIONS)
def test_each_user_may_have_the_taps_of_its_own_endpoints(side, wiring, workers):
    """Said once more, from the endpoints of the plan: what a process asks for it may have, and nothing else."""
    users = {p.id: 100 + at for at, p in enumerate(processes(wiring, workers))}
    plain = [p for p in plan(side, wiring, workers, site(side)) if p.role not in ("netdev", "frame")]
    wanted = {}
    for spec in plain:
        for end in endpoints(spec).values():
            if end.scheme == "tap":
                key = (users[spec.id], end.address)
                wanted[key] = wanted.get(key, True) and end.lease
    planned = plan(side, wiring, workers, replace(site(side), users=users))
    found = {}
    for text in next(p for p in planned if p.role == "netdev").options["allow"]:
        grant = parse_allow(text)
        found |= {(grant.user, tap): grant.lease for tap in grant.taps}
    assert found == wanted


def test_a_process_without_a_user_among_others_that_have_one_is_an_error():
    with pytest.raises(ConfigError, match="m0"):
        plan("primary", "faithful", 1, replace(site("primary"), users={"redire1": 7}))


def test_users_by_role_and_offers():
    users = {"mirror": 1, "redirector": 2, "compare": 3, "@lan": 4}
    netdev = plan("primary", "lean", 1, replace(site("primary"), users=users))[0]
    assert netdev.options["allow"] == (
        "user=1,tap=lan-p+guest-p",
        "user=3,tap=guest-p",
        "user=3,tap=lan-p,lease=on",
        "user=4,netns=lan",
    )


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_third_vote_is_one_process_of_each_host_and_only_where_the_site_has_one(side, wiring):
    without = plan(side, wiring, 1, site(side))
    withal = plan(side, wiring, 1, replace(site(side), vote="etcd://a:1"))
    (vote,) = [spec for spec in withal if spec.role == "vote"]
    assert vote.id == f"vote-{side[0]}"
    assert vote.options["store"] == "etcd://a:1"
    frame = next(spec for spec in withal if spec.role == "frame")
    assert parse_endpoint(vote.options["frame"]).url == parse_endpoint(frame.options["listen"]).url
    assert frame.options["vote"] == "on"
    others = [spec for spec in withal if spec.role not in ("vote", "frame")]
    assert others == [spec for spec in without if spec.role != "frame"]
    assert "vote" not in next(spec for spec in without if spec.role == "frame").options
