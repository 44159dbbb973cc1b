import pytest

from colo_netdev.config import NetdevConfig, TapSpec, parse_tap
from colo_proto.config import build
from colo_proto.errors import ConfigError


def test_a_bare_name():
    assert parse_tap("lan0") == TapSpec("lan0")
    assert parse_tap("lan0").kernel_name == "lan0"


def test_every_key():
    spec = parse_tap(
        "t0,netns=/proc/7/ns/net,bridge=br0,ifname=eth0,mac=52:54:00:AA:00:01,vnet_hdr=off,mtu=9000,queue=50"
    )
    assert spec == TapSpec(
        "t0", "/proc/7/ns/net", "br0", ifname="eth0", mac="52:54:00:aa:00:01", vnet_hdr=False, mtu=9000, queue=50
    )
    assert spec.kernel_name == "eth0"
    assert not spec.offer


def test_an_offered_namespace_with_uplink_and_addresses():
    spec = parse_tap("lan,netns=@lan,bridge=br0,uplink=eth0,address=10.1.0.2/24+fd01::2/64,gateway=10.1.0.1")
    assert spec.offer == "lan"
    assert (spec.bridge, spec.uplink) == ("br0", "eth0")
    assert spec.address == ("10.1.0.2/24", "fd01::2/64")
    assert spec.gateway == "10.1.0.1"


def test_a_dash_is_an_underscore():
    assert not parse_tap("t0,vnet-hdr=off").vnet_hdr


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "name"),
        ("a" * 16, "a" * 16),
        ("a/b", "a/b"),
        ("tap%d", "tap%d"),
        ("t0,color=red", "color"),
        ("t0,netns", "netns"),
        ("t0,netns=", "netns"),
        ("t0,mtu=67", "67"),
        ("t0,mtu=many", "many"),
        ("t0,mac=1", "mac"),
        ("t0,mac=01:00:00:00:00:00", "01:00"),
        ("t0,vnet_hdr=perhaps", "perhaps"),
        ("t0,bridge=a b", "a b"),
        ("t0,mtu=1500,mtu=1500", "mtu"),
        ("t0,uplink=eth0", "uplink goes with bridge"),
        ("t0,netns=@", "needs a name"),
        ("t0,address=10.0.0.2", "10.0.0.2/24"),
        ("t0,address=guest/24", "guest"),
        ("t0,address=10.0.0.2/24+10.0.0.3/24", "one IPv4"),
        ("t0,gateway=10.0.0.0/8", "gateway"),
    ],
)
def test_a_wrong_tap_is_named(text, names):
    with pytest.raises(ConfigError) as error:
        parse_tap(text)
    assert names in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"listen": ""}, "--listen"),
        ({"listen": "/" + "x" * 110}, "107"),
        ({"tap": ()}, "--tap"),
        ({"tap": ("a", "a,mtu=1400")}, "twice"),
        ({"tap": ("a,color=red",)}, "color"),
        ({"adopt_timeout": -1}, "--adopt-timeout"),
        ({"socket_mode": "rw"}, "--socket-mode rw"),
        ({"socket_mode": "7777"}, "--socket-mode 7777"),
        ({"owner": "joe"}, "--owner joe"),
        ({"tab": ("a",)}, "did you mean 'tap'"),
    ],
)
def test_a_wrong_config_is_named(fields, names):
    with pytest.raises(ConfigError, match=names):
        build(NetdevConfig, {"listen": "/run/x", "tap": ("a",), **fields})


def test_owner():
    def config(owner):
        return NetdevConfig("/run/x", ("a",), owner=owner)

    assert config("").owner_ids() is None
    assert config("10").owner_ids() == (10, -1)
    assert config("10:20").owner_ids() == (10, 20)


@pytest.mark.parametrize("number", ["²", "٣", "9" * 5000, "4294967295", "-1", "x", " 1", "1_0"])
def test_what_is_no_number_is_one_line(number):
    for given in ({"owner": number}, {"owner": f"7:{number}"}):
        with pytest.raises(ConfigError, match="--owner"):
            NetdevConfig("/run/x", ("lan",), **given)
    for key in ("mtu", "queue"):
        with pytest.raises(ConfigError, match=f"{key} is a number"):
            parse_tap(f"lan,{key}={number}")
