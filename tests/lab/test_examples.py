"""The examples in the READMEs that need the same things as the lab."""

import pytest

from examples import examples, run

ALONE = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "-")
"""The example runs in a network namespace of its own. What netdev makes there disappears with the namespace."""


@pytest.mark.parametrize("example", [one for one in examples() if one.needs == "root"], ids=lambda one: one.name)
def test_it_does_what_is_printed(example, tmp_path, privileged):
    run(example, tmp_path, () if example.name.startswith("lab-") else ALONE)
