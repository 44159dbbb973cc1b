"""The examples of the READMEs that need what the lab needs."""

import pytest

from examples import examples, run

ALONE = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "-")
"""In a network namespace of its own: what netdev makes there goes with it."""


@pytest.mark.parametrize("example", [one for one in examples() if one.needs == "root"], ids=lambda one: one.name)
def test_it_does_what_is_printed(example, tmp_path, privileged):
    run(example, tmp_path, () if example.name.startswith("lab-") else ALONE)
