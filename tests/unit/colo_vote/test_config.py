"""What `colo vote` refuses to start with: one line, exit status 2."""

import sys

import pytest

from colo_proto.errors import ConfigError
from colo_runtime.options import Setting
from colo_runtime.service import check, services
from colo_vote.config import VoteConfig
from colo_vote.store import open_store


def resolve(**options):
    service = services()["vote"]
    table = service.table()
    given = {"store": "etcd://127.0.0.1:2379", "frame": "ipc:///run/c.sock"} | options
    return check(service, table, {name: Setting(table[name].parse(value, name), "") for name, value in given.items()})


def test_a_store_on_this_machine():
    assert resolve(store="etcd://127.0.0.1:2379,[::1]:2379,localhost:1").config.key == "/colo/colo/writer"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"store": ""}, "--store: required"),
        ({"store": "127.0.0.1:2379"}, "SCHEME://HOST:PORT"),
        ({"store": "consul://127.0.0.1:2379"}, "no store is called 'consul'"),
        ({"store": "__init__://x:1"}, "no store is called|SCHEME"),
        ({"store": "etcd://"}, "HOST:PORT expected"),
        ({"store": "etcd://:2379"}, "a host is missing"),
        ({"store": "etcd://127.0.0.1"}, "HOST:PORT expected"),
        ({"store": "etcd://" + ",".join(["127.0.0.1:1"] * 10)}, "1 to 9 members"),
        ({"store": "etcd://192.0.2.1:2379"}, "192.0.2.1: another host needs TLS"),
        ({"frame": ""}, "--frame: required"),
        ({"pair": "a/b"}, "without '/'"),
        ({"pair": "x" * 65}, "without '/'"),
        ({"ttl": "1"}, "at least 2"),
        ({"store_cert": "a"}, "both or neither"),
        ({"store_cert": "a", "store_key": "b"}, "needs --store-ca"),
        ({"store_user": "a"}, "both or neither"),
        ({"store_user": "a", "store_password": "/nonexistent"}, "--store-password /nonexistent: No such file"),
        ({"store_ca": "/nonexistent"}, "--store-ca"),
    ],
)
def test_mistakes(options, words):
    with pytest.raises(ConfigError, match=words):
        resolve(**options)


def test_in_the_clear_only_if_it_is_said():
    resolve(store="etcd://192.0.2.1:2379", insecure="on")


def test_a_scheme_is_a_file_and_nothing_else():
    with pytest.raises(ConfigError):
        open_store(VoteConfig(store="etcd.x://127.0.0.1:1"))


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("colo_vote.stores", "urllib3"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(ConfigError, match=r"urllib3 is missing; pip install 'colo-proxy\[vote\]'"):
        resolve()
