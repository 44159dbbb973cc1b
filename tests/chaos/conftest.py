"""This ring needs a Docker engine; without one each test is skipped, with the reason."""

from pathlib import Path

import pytest

from chaos.campaign import FILES, Campaign
from containers import engine

SLOW = 1200
"""Seconds for a test with what it brings up, on a loaded machine."""


def pytest_collection_modifyitems(items):
    """A test that hangs is interrupted, not the whole run ended: what it made must be taken down."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(SLOW, method="signal"))


@pytest.fixture(scope="module")
def campaign():
    """A pair of its own, up and working; it goes with the last test that has it."""
    reason = engine.missing()
    if reason:
        pytest.skip(reason)
    with engine.project(*FILES, image=engine.image()) as project:
        one = Campaign(project, print)
        one.start()
        yield one
