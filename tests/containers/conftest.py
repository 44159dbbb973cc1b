"""This ring needs a Docker engine. Without one each test is skipped with the reason."""

import contextlib
from pathlib import Path

import pytest

from containers import engine

_up = contextlib.ExitStack()
SLOW = 1200
"""Seconds for a test and its fixtures on a loaded machine."""


def pytest_collection_modifyitems(items):
    """Interrupt a test that hangs instead of ending the whole run, because what it has made must be taken down."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(SLOW, method="signal"))


@pytest.fixture(autouse=True, scope="session")
def _machine():
    reason = engine.missing()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def image(_machine):
    """The image of the product, built from these sources."""
    return engine.image()


@pytest.fixture(scope="session")
def pair(image):
    """The demo, which runs and is healthy. All tests that leave it as they found it share one."""
    one = _up.enter_context(engine.project("demo.yaml", "chaos.yaml", image=image))
    one.up()
    one.seconds = one.await_healthy()
    one.await_ready()
    yield one
    _up.close()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem):
    """The pair is taken down after the last test of this ring, because its health checks keep a slow machine busy."""
    if nextitem is None or not nextitem.path.is_relative_to(Path(__file__).parent):
        _up.close()
