"""Names of counters in reports and in /metrics."""

from types import SimpleNamespace

import pytest

from colo_proto.core import Way
from colo_proto.endpoint import parse_endpoint
from colo_runtime.counting import families, link_counters, link_gauges, metric
from colo_runtime.link import Link


class Still(Link):
    """A link that only counts."""

    def open(self):
        self.opened = True

    def send(self, frames):
        self.count_sent(frames)


def link(port, endpoint, way=Way.BOTH, **counters):
    one = Still(port, way, parse_endpoint(endpoint), SimpleNamespace(id="a"), lambda _frames: None)
    one.counters.update({name.replace("__", "."): n for name, n in counters.items()})
    return one


def test_counters_of_links():
    links = [
        link("outdev", "ipc:///x", frames_out=5, dropped__queue_full=2, dropped__closed=1),
        link("indev", "tcp://h:1", frames_in=7),
    ]
    assert link_counters(links) == {
        "link.outdev.frames_out": 5,
        "link.outdev.dropped.queue_full": 2,
        "link.outdev.dropped.closed": 1,
        "link.outdev.dropped": 3,
        "link.indev.frames_in": 7,
        "link.indev.dropped": 0,
    }
    assert link_gauges([link("outdev", "ipc:///x", Way.OUT), link("indev", "ipc:///y", Way.IN)]) == {
        "link.outdev.queue_bytes": 0
    }


def test_a_tap_counts_under_its_own_name_as_well():
    both = link_counters([link("netdev", "tap://guest", frames_in=3, written=2)])
    assert (both["tap.guest.read"], both["tap.guest.written"]) == (3, 2)
    writes = link_counters([link("next", "tap://guest", Way.OUT, written=2)])
    assert "tap.guest.read" not in writes
    reads = link_counters([link("netdev", "tap://lan", Way.IN, frames_in=3)])
    assert "tap.lan.written" not in reads


@pytest.mark.parametrize(
    ("name", "family", "labels"),
    [
        ("released", "released", {}),
        ("dropped.timeout", "dropped", {"reason": "timeout"}),
        ("link.outdev.sequence", "link_sequence", {"port": "outdev"}),
        ("link.outdev.dropped.queue_full", "link_dropped", {"port": "outdev", "reason": "queue_full"}),
        ("link.in.wire_errors.version", "link_wire_errors", {"port": "in", "reason": "version"}),
        ("tap.lan.read", "tap_read", {"tap": "lan"}),
        ("control.sent", "control_sent", {}),
        ("control.wire_errors.kind", "control_wire_errors", {"reason": "kind"}),
    ],
)
def test_metric_names(name, family, labels):
    assert metric(name) == (family, labels)


def test_a_total_does_not_stand_beside_its_parts():
    rows = families({"dropped": 3, "dropped.a": 1, "dropped.b": 2, "released": 4})
    assert rows["dropped"] == [({"reason": "a"}, 1), ({"reason": "b"}, 2)]
    assert rows["released"] == [({}, 4)]
    assert sum(n for _, n in rows["dropped"]) == 3


def test_each_port_decides_for_itself():
    rows = families({"link.a.dropped": 1, "link.a.dropped.x": 1, "link.b.dropped": 0})["link_dropped"]
    assert sorted(rows, key=str) == [({"port": "a", "reason": "x"}, 1), ({"port": "b"}, 0)]
