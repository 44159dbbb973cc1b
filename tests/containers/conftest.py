"""This ring needs a Docker engine; without one each test is skipped, with the reason."""

import contextlib
from pathlib import Path

import pytest

from containers import engine

_up = contextlib.ExitStack()
SLOW = 1200
"""Seconds for a test with what it brings up, on a loaded machine."""


def pytest_collection_modifyitems(items):
    """A test that hangs is interrupted, not the whole run ended: what it made must be taken down."""
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
    """The product's image, for this state of the sources."""
    return engine.image()


@pytest.fixture(scope="session")
def pair(image):
    """The demo, up and well; one for all tests that leave it as they found it."""
    one = _up.enter_context(engine.project("demo.yaml", "chaos.yaml", image=image))
    one.up()
    one.seconds = one.await_healthy()
    one.await_ready()
    yield one
    _up.close()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem):
    """The pair goes with the last test of this ring: its health checks alone keep a slow machine busy."""
    if nextitem is None or not nextitem.path.is_relative_to(Path(__file__).parent):
        _up.close()
