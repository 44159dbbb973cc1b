"""A third vote in a real etcd of three members: one writer, whatever is cut; `make votes` does each case many times."""

import pytest

from etcd import needs_etcd
from votes import play

SOMETIMES_LATER = pytest.mark.xfail(
    reason="the takeover is sometimes later than the lease and one second", strict=False
)
"""Known, and not understood yet: `make votes` counts how often."""


@needs_etcd
@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize(
    ("case", "wiring"),
    [
        ("cut", "lean"),
        pytest.param("store", "faithful", marks=SOMETIMES_LATER),
        pytest.param("host", "lean", marks=SOMETIMES_LATER),
        ("quorum", "faithful"),
    ],
)
def test_a_third_vote(case, wiring):
    play(case, wiring)
