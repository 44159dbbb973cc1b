"""Starts the demo's services in other orders than compose would: the first ones wait for the others."""

import pytest

from containers import engine

GUESTS = ("guest-net", "guest", "guest-net-s", "guest-s", "client")


def groups(pair):
    """The services in groups that start together: the processes of each host, and both guests with the client."""
    every = set(pair.compose("config", "--services").split()) - set(GUESTS)
    secondary = {name for name in every if name.endswith("-s")} | {"f1", "rew0", "f2"}
    return {
        "namespaces": ["guest-net", "guest-net-s"],
        "primary": sorted(every - secondary),
        "secondary": sorted(secondary),
        "guests": list(GUESTS),
    }


@pytest.mark.parametrize(
    "order", [("primary", "secondary", "guests"), ("namespaces", "secondary", "primary", "guests")], ids="-".join
)
def test_start_order_does_not_matter(image, order):
    with engine.project("demo.yaml", image=image) as pair:
        those = groups(pair)
        for one in order:
            pair.up("--no-deps", *those[one])
            # It is alone for long enough to have tried to reach the others.
            if one in ("primary", "secondary"):
                pair.await_healthy("frame" if one == "primary" else "frame-s")
        pair.await_healthy()
        pair.await_ready()
        found = pair.job("download", "--size=5000000")
        assert found["wrong"] == 0, found
        assert pair.compared(5_000_000)["bytes_compared"] >= 5_000_000
