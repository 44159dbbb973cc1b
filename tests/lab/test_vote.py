"""A third vote in a real etcd of three members: one writer, whatever is cut; `make votes` does each case many times."""

import pytest

from etcd import needs_etcd
from votes import play


@needs_etcd
@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize(
    ("case", "wiring"), [("cut", "lean"), ("store", "faithful"), ("host", "lean"), ("quorum", "faithful")]
)
def test_a_third_vote(case, wiring):
    play(case, wiring)
