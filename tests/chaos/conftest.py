"""This ring needs a Docker engine. Without one each test is skipped with the reason."""

from pathlib import Path

import pytest

from chaos.campaign import FILES, Campaign
from containers import engine

SLOW = 1200
"""Seconds for a test and its fixtures on a loaded machine."""


def pytest_collection_modifyitems(items):
    """Interrupt a test that hangs instead of ending the whole run, because what it has made must be taken down."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(SLOW, method="signal"))


@pytest.fixture(scope="module")
def campaign():
    """A pair for this ring, up and working. It is taken down after the last test that uses it."""
    reason = engine.missing()
    if reason:
        pytest.skip(reason)
    with engine.project(*FILES, image=engine.image()) as project:
        one = Campaign(project, print)
        one.start()
        yield one
