import pytest

from colo_frame.drivers import Flush, Step, Verdict, make_driver
from colo_proto.errors import ConfigError
from colo_proto.messages import Answer


def test_flush_is_done_at_once_and_copies_nothing():
    driver = make_driver("flush")
    assert driver.start(1, 0.0) == Step([], Verdict(ok=True, state_copied=False))
    assert not driver.copies_state
    assert driver.deadline() is None


def test_flush_waits_for_nobody():
    driver = Flush()
    assert driver.hear(Answer(ok=True), 0.0) == Step([])
    assert driver.on_timer(0.0) == Step([])


def test_an_unknown_driver_is_the_operators_error():
    with pytest.raises(ConfigError, match="flush"):
        make_driver("teleport")
