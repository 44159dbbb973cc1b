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


def test_several_failovers_need_a_way_back():
    several = (("died", 1.0), ("died", 9.0))
    for wiring in ("faithful", "lean"):
        LabConfig(wiring=wiring, failovers=several[:1])
        for failovers in (several, (("planned", 1.0),)):
            with pytest.raises(ConfigError, match="nothing leads back"):
                LabConfig(wiring=wiring, failovers=failovers)
    LabConfig(wiring="symmetric", failovers=several)
