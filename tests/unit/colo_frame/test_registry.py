from colo_frame.registry import FORGET_AFTER, MAX_PROCESSES, Registry
from colo_proto.messages import Hello, Report


def hello(role="compare", name="comp0", incarnation=1):
    return Hello(role, name, incarnation, pid=7, http="127.0.0.1:1")


def test_hello_again_is_not_news():
    registry = Registry(5.0)
    assert registry.hello("comp0", hello(), 0.0)[1:] == (True, False)
    assert registry.hello("comp0", hello(), 1.0)[1:] == (False, False)


def test_another_incarnation_is_a_restart_and_forgets_the_report():
    registry = Registry(5.0)
    process, *_ = registry.hello("comp0", hello(), 0.0)
    process.report = Report("compare", "comp0", 1, {"x": 1}, {})
    assert registry.hello("comp0", hello(incarnation=2), 1.0)[1:] == (False, True)
    assert process.restarts == 1
    assert process.report is None


def test_one_that_was_replaced_and_is_back_shows_that_there_are_two():
    registry = Registry(5.0)
    process, *_ = registry.hello("comp0", hello(), 0.0)
    registry.hello("comp0", hello(incarnation=2), 1.0)
    assert not process.twice, "a restart looks like this"
    registry.hello("comp0", hello(), 2.0)
    assert process.twice
    assert process.former == [(1, 7), (2, 7)]
    registry.hello("comp0", hello(incarnation=3), 3.0)
    assert not process.twice
    for number in range(4, 40):
        registry.hello("comp0", hello(incarnation=number), 3.0)
    assert len(process.former) == 8


def test_silence_loses_and_a_word_does_not_find_again():
    registry = Registry(5.0)
    registry.hello("comp0", hello(), 0.0)
    registry.seen("comp0", 3.0)
    assert registry.sweep(7.9) == []
    assert registry.deadline() == 8.0
    assert [p.id for p in registry.sweep(8.0)] == ["comp0"]
    assert registry.live("compare") == []
    assert registry.sweep(9.0) == []
    assert registry.hello("comp0", hello(), 10.0)[1:] == (True, False)
    assert registry.live("compare") == ["comp0"]


def test_the_long_lost_are_forgotten():
    registry = Registry(5.0)
    registry.hello("comp0", hello(), 0.0)
    registry.sweep(5.0)
    assert registry.deadline() == FORGET_AFTER
    registry.sweep(FORGET_AFTER)
    assert not registry.processes
    assert registry.deadline() is None


def test_the_registry_is_bounded():
    registry = Registry(5.0)
    for number in range(MAX_PROCESSES):
        registry.hello(f"p{number}", hello(name=f"p{number}"), 0.0)
    assert registry.hello("more", hello(name="more"), 0.0) == (None, False, False)
    assert len(registry.processes) == MAX_PROCESSES


def test_status_shows_the_last_report_and_ages_in_milliseconds():
    registry = Registry(5.0)
    process, *_ = registry.hello("comp0", hello(), 0.0)
    assert process.status(0.5)["report_age_ms"] is None
    process.report, process.reported = Report("compare", "comp0", 1, {"a": 1}, {"g": 2}, {"s": 3}), 1.0
    status = process.status(1.5)
    assert (status["counters"], status["gauges"], status["status"]) == ({"a": 1}, {"g": 2}, {"s": 3})
    assert (status["age_ms"], status["report_age_ms"], status["state"]) == (1500, 500, "live")
