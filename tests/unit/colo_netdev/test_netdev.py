from dataclasses import dataclass

import pytest

from colo_netdev.config import NetdevConfig
from colo_netdev.netdev import Netdev
from colo_netdev.taps import Tap, TapExistsError
from colo_proto.errors import ConfigError
from colo_proto.netdev import RefusedError, Request, decode_reply

TEXTS = ("lan", "guest,mac=02:00:00:00:00:09,mtu=1400")


def ready(netdev):
    """True when every tap is owned."""
    return not netdev.awaited and not netdev.missing()


class Kernel:
    """Stands for the system calls: which names exist, which descriptors are whose."""

    def __init__(self, existing=()):
        self.existing = set(existing)
        self.places = []
        self.closed = []

    def open(self, spec, *, offered=None):
        if spec.name in self.existing:
            raise TapExistsError(spec.name)
        if offered == "broken":
            raise ConfigError("there is no bridge br0")
        self.existing.add(spec.name)
        self.places.append((spec.name, offered))
        return KernelTap(spec, 100 + len(self.places) - 1, spec.mac or "02:00:00:00:00:01", kernel=self)

    def adopt(self, spec, fd):
        if fd != 7:
            raise ValueError("not a tap")
        return KernelTap(spec, fd, spec.mac, adopted=True, kernel=self)


@dataclass(slots=True)
class KernelTap(Tap):
    """Alive while the kernel has an interface of its name."""

    kernel: Kernel = None

    @property
    def alive(self):
        return self.spec.name in self.kernel.existing

    def close(self):
        self.kernel.closed.append(self.fd)


def make(existing=(), adopt_timeout=5.0, texts=TEXTS):
    kernel = Kernel(existing)
    netdev = Netdev(NetdevConfig("/run/x", texts, adopt_timeout=adopt_timeout), kernel.open, kernel.adopt)
    return netdev, kernel


def test_get_passes_the_descriptor():
    netdev, _ = make()
    netdev.open(0.0)
    assert ready(netdev)
    assert netdev.deadline is None
    reply, fd = netdev.answer(Request("get", "guest"), [])
    assert fd == 101
    assert decode_reply(reply).mac == "02:00:00:00:00:09"
    assert decode_reply(reply).mtu == 1400
    assert netdev.counters == {"requests": 1, "passed": 1}


def test_an_unknown_tap_is_refused_and_the_known_are_named():
    netdev, _ = make()
    netdev.open(0.0)
    reply, fd = netdev.answer(Request("get", "nope"), [])
    assert fd is None
    with pytest.raises(RefusedError, match="nope.*lan, guest") as error:
        decode_reply(reply)
    assert not error.value.retry


def test_a_tap_that_exists_is_awaited_and_adopted():
    netdev, _ = make(existing=["guest"])
    netdev.open(10.0)
    assert not ready(netdev)
    assert netdev.deadline == 15.0
    reply, _ = netdev.answer(Request("get", "guest"), [])
    with pytest.raises(RefusedError) as error:
        decode_reply(reply)
    assert error.value.retry
    fds = [8]
    with pytest.raises(RefusedError, match="not a tap"):
        decode_reply(netdev.answer(Request("return", "guest"), fds)[0])
    assert fds == [8], "a descriptor that is not taken stays the caller's to close"
    fds = [7, 9]
    assert decode_reply(netdev.answer(Request("return", "guest"), fds)[0]).tap == "guest"
    assert fds == [9]
    assert ready(netdev)
    assert netdev.deadline is None
    assert netdev.answer(Request("get", "guest"), [])[1] == 7
    assert netdev.counters["adopted"] == 1
    netdev.check(99.0)


def test_a_second_return_is_thanked_and_not_kept():
    netdev, _ = make()
    netdev.open(0.0)
    fds = [55]
    assert decode_reply(netdev.answer(Request("return", "lan"), fds)[0]).tap == "lan"
    assert fds == [55]


def test_returns_that_make_no_sense():
    netdev, _ = make(existing=["guest"])
    netdev.open(0.0)
    for request, fds in ((Request("return", "guest"), []), (Request("return", "what"), [7])):
        with pytest.raises(RefusedError):
            decode_reply(netdev.answer(request, fds)[0])


def test_it_gives_up_on_a_name_that_somebody_else_has():
    netdev, _ = make(existing=["guest"])
    netdev.open(0.0)
    netdev.check(4.9)
    with pytest.raises(ConfigError, match="guest.*exists already"):
        netdev.check(5.0)


def test_a_tap_that_vanished_meanwhile_is_made_anew():
    netdev, kernel = make(existing=["guest"])
    netdev.open(0.0)
    kernel.existing.clear()
    netdev.check(5.0)
    assert ready(netdev)
    assert netdev.deadline is None


def test_no_waiting_when_told_so():
    netdev, _ = make(existing=["lan"], adopt_timeout=0.0)
    with pytest.raises(ConfigError, match="lan"):
        netdev.open(0.0)


def test_status():
    netdev, _ = make(existing=["guest"])
    netdev.open(0.0)
    assert netdev.gauges() == {"taps": 1, "taps_awaited": 1, "offers": 0}
    assert netdev.status()["awaited"] == ["guest"]


OFFERED = ("lan", "guest,netns=@guest")


def refusal(netdev, name):
    with pytest.raises(RefusedError) as error:
        decode_reply(netdev.answer(Request("get", name), [])[0])
    return error.value


def test_a_tap_waits_for_the_offer_of_its_namespace():
    netdev, kernel = make(texts=OFFERED)
    netdev.open(0.0)
    assert kernel.places == [("lan", None)]
    assert not ready(netdev)
    assert [spec.name for spec in netdev.missing()] == ["guest"]
    assert refusal(netdev, "guest").retry
    assert netdev.offerable("guest")
    assert not netdev.offerable("lan")
    assert [tap.spec.name for tap in netdev.offer("guest", "space 1", 1.0)] == ["guest"]
    assert kernel.places[1:] == [("guest", "space 1")]
    assert ready(netdev)
    assert netdev.answer(Request("get", "guest"), [])[1] == 101


def test_a_living_tap_stays_where_it_is_when_another_namespace_is_offered():
    netdev, kernel = make(texts=OFFERED)
    netdev.open(0.0)
    netdev.offer("guest", "space 1", 1.0)
    netdev.withdraw("guest", "space 1")
    assert netdev.offer("guest", "space 2", 2.0) == []
    assert netdev.answer(Request("get", "guest"), [])[1] == 101
    # The guest has left the first namespace at last, and the kernel has taken the tap with it.
    kernel.existing.discard("guest")
    assert netdev.answer(Request("get", "guest"), [])[1] == 102
    assert kernel.places[-1] == ("guest", "space 2")
    assert kernel.closed == [101]
    assert netdev.counters["vanished"] == 1


def test_a_tap_that_vanished_with_its_namespace_is_made_in_the_next():
    netdev, kernel = make(texts=OFFERED)
    netdev.open(0.0)
    netdev.offer("guest", "space 1", 1.0)
    netdev.withdraw("guest", "space 1")
    kernel.existing.discard("guest")
    assert refusal(netdev, "guest").retry, "nobody offers a place now"
    assert [tap.fd for tap in netdev.offer("guest", "space 2", 2.0)] == [102]


def test_a_late_farewell_does_not_take_a_newer_offer_away():
    netdev, _ = make(texts=OFFERED)
    netdev.open(0.0)
    netdev.offer("guest", "space 1", 1.0)
    netdev.offer("guest", "space 2", 2.0)
    netdev.withdraw("guest", "space 1")
    assert netdev.offers == {"guest": "space 2"}


def test_a_restarted_netdev_takes_an_offered_tap_back_before_and_after_the_offer():
    for offer_first in (True, False):
        netdev, kernel = make(existing=["guest"], texts=OFFERED)
        netdev.open(0.0)
        if offer_first:
            netdev.offer("guest", "space 1", 0.0)
            assert list(netdev.awaited) == ["guest"]
        assert decode_reply(netdev.answer(Request("return", "guest"), [7])[0]).tap == "guest"
        if not offer_first:
            assert netdev.offer("guest", "space 1", 1.0) == []
        assert ready(netdev)
        assert netdev.deadline is None
        assert netdev.answer(Request("get", "guest"), [])[1] == 7
        assert kernel.places == [("lan", None)]


def test_an_awaited_tap_whose_namespace_went_away_waits_for_the_next_offer():
    netdev, _ = make(existing=["guest"], texts=OFFERED)
    netdev.open(0.0)
    netdev.offer("guest", "space 1", 0.0)
    netdev.withdraw("guest", "space 1")
    netdev.check(6.0)
    assert [spec.name for spec in netdev.missing()] == ["guest"]


def test_a_place_that_does_not_suit_is_told_to_who_asks_and_tried_again():
    netdev, _ = make(texts=OFFERED)
    netdev.open(0.0)
    with pytest.raises(ConfigError, match="br0"):
        netdev.offer("guest", "broken", 1.0)
    error = refusal(netdev, "guest")
    assert error.retry
    assert "br0" in str(error)
    netdev.offer("guest", "mended", 2.0)
    assert ready(netdev)


def test_a_tap_that_somebody_deleted_is_made_anew():
    netdev, kernel = make()
    netdev.open(0.0)
    kernel.existing.discard("lan")
    assert netdev.answer(Request("get", "lan"), [])[1] == 102


def test_what_the_kernel_drops_is_counted_by_tap_once_a_second():
    dropped = {100: 0, 101: 0}
    kernel = Kernel()
    config = NetdevConfig("/run/x", TEXTS)
    netdev = Netdev(config, kernel.open, kernel.adopt, lambda fd: dropped[fd])
    netdev.open(0.0)
    assert netdev.look(0.0) == {}
    dropped[101] = 700
    assert netdev.look(0.5) == {}
    assert netdev.look(netdev.next_look) == {"guest": 700}
    assert netdev.look(2.5) == {}
    dropped[101] = 707
    assert netdev.look(4.0) == {"guest": 7}
    assert {name: n for name, n in netdev.counters.items() if name.startswith("tap.")} == {
        "tap.lan.dropped": 0,
        "tap.guest.dropped": 707,
    }


def test_what_an_adopted_tap_dropped_before_is_not_counted_again():
    kernel = Kernel(existing=["guest"])
    dropped = {7: 50, 100: 0}
    netdev = Netdev(NetdevConfig("/run/x", TEXTS), kernel.open, kernel.adopt, lambda fd: dropped[fd])
    netdev.open(0.0)
    fds = [7]
    netdev.answer(Request("return", "guest"), fds)
    assert netdev.look(1.0) == {}
    dropped[7] = 53
    assert netdev.look(2.0) == {"guest": 3}


def test_a_tap_that_does_not_say_what_it_dropped_is_left_out():
    kernel = Kernel()

    def gone(_fd):
        raise OSError(77, "File descriptor in bad state")

    netdev = Netdev(NetdevConfig("/run/x", TEXTS), kernel.open, kernel.adopt, gone)
    netdev.open(0.0)
    assert netdev.look(1.0) == {}
    assert "tap.lan.dropped" not in netdev.counters
