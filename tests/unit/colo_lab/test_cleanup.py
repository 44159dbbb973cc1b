from colo_lab.cleanup import kill_inhabitants


def test_nobody_lives_in_a_namespace_that_is_not_there():
    assert kill_inhabitants({1}, set()) == 0
