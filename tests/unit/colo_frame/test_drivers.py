from colo_frame.drivers import DRIVERS, Flush, Step, Verdict
from colo_proto.messages import Answer


def test_flush_is_done_at_once_and_copies_nothing():
    driver = DRIVERS["flush"]()
    assert driver.start(1, 0.0) == Step([], Verdict(ok=True, state_copied=False))
    assert not driver.copies_state
    assert driver.deadline() is None


def test_flush_waits_for_nobody():
    driver = Flush()
    assert driver.hear(Answer(ok=True), 0.0) == Step([])
    assert driver.on_timer(0.0) == Step([])


def test_every_driver_is_called_by_its_own_name():
    assert {name: one.name for name, one in DRIVERS.items()} == {name: name for name in DRIVERS}
    assert all(isinstance(one().copies_state, bool) for one in DRIVERS.values())
