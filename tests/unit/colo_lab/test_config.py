import pytest

from colo_lab.config import LabConfig
from colo_proto.errors import ConfigError


def test_defaults_are_a_lab():
    config = LabConfig()
    assert (config.wiring, config.workers, config.mode, config.restart) == ("faithful", 1, "enforce", True)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"workers": 0}, "--compare 0"),
        ({"workers": 65}, "--compare 65"),
        ({"secondary_guest": "x"}, "--secondary-guest"),
    ],
)
def test_what_is_wrong_is_named(fields, names):
    with pytest.raises(ConfigError, match=names):
        LabConfig(**fields)
