"""What the lab concludes from the COLO frames' answers about who leads, and when the pair is protected again."""

from colo_lab.circle import DIED, PLANNED, Circle, leader, protected


def body(writes, level="protected", fence=2, **leadership):
    causes = [{"reason": "joining"}] if level == "unprotected" else []
    return {
        "fence": fence,
        "verdict": {"level": level, "causes": causes},
        "leadership": {"writes": writes, **leadership},
    }


def test_who_leads():
    assert leader({"primary": body(True), "secondary": body(False)}) == "primary"
    assert leader({"primary": body(False), "secondary": body(False)}) is None
    assert leader({"secondary": body(True)}) == "secondary"
    assert leader({"primary": body(True, fence=2), "secondary": body(True, fence=3)}) == "secondary"
    assert leader({"primary": {"leadership": None}}) is None


def test_a_host_dies_and_is_repaired():
    circle = Circle()
    circle.begin(10.0, "primary", DIED)
    (record,) = circle.records
    circle.observe(11.0, {"secondary": body(False)})
    assert record.led is None
    told = {"at": 12.5, "silence_ms": 2400}
    circle.observe(12.6, {"secondary": body(True, "unprotected", promotion=told)})
    assert (record.led, record.silence_ms, circle.pending) == (12.5, 2400, True)
    both = {"primary": body(False), "secondary": body(True, promotion=told)}
    circle.observe(12.7, both)
    assert record.protected is None, "the host that died cannot be protected yet: this is an answer from before"
    circle.repair(13.0, "primary")
    circle.observe(15.0, {"primary": body(False, "unprotected"), "secondary": body(True, "unprotected")})
    assert record.protected is None
    circle.observe(16.0, both)
    assert (record.repaired, record.protected, circle.pending) == (13.0, 16.0, False)


def test_a_planned_one_needs_no_repair():
    circle = Circle()
    circle.begin(10.0, "secondary", PLANNED)
    circle.observe(10.1, {"primary": body(False), "secondary": body(True)})
    # It tells of its promotion before that, which is none of this failover's.
    circle.observe(10.2, {"primary": body(True, promotion={"at": 5.0, "silence_ms": 3}), "secondary": body(False)})
    (record,) = circle.records
    assert (record.led, record.silence_ms, record.protected) == (10.2, None, 10.2)


def test_connections_from_before_the_resync_do_not_count():
    old = {"level": "unprotected", "causes": [{"reason": "flows"}]}
    assert protected({side: {"verdict": old} for side in ("primary", "secondary")})
    assert not protected({"primary": {"verdict": old}})
    assert not protected({"primary": {"verdict": old}, "secondary": {"verdict": None}})
    more = {"level": "unprotected", "causes": [{"reason": "flows"}, {"reason": "link_cut"}]}
    assert not protected({"primary": {"verdict": old}, "secondary": {"verdict": more}})


def test_an_order_that_was_refused_is_over():
    circle = Circle()
    circle.begin(10.0, "primary", PLANNED, "no replica")
    assert not circle.pending
