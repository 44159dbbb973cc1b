"""Where an option's value comes from: defaults < file < environment < flags."""

import pytest

from colo_proto.errors import ConfigError
from colo_runtime.options import environment, gather, load, only
from colo_runtime.service import anywhere, resolve, services

TABLE = services()["compare"].table()
PORTS = {"primary_in": "ipc:///a", "secondary_in": "ipc:///b", "outdev": "ipc:///c"}


def compare(flags=None, environ=None):
    return resolve(services()["compare"], TABLE, {**PORTS, **(flags or {})}, environ or {})


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "colo.toml"
        path.write_text(text)
        return str(path)

    return write


class TestRank:
    def test_each_source_wins_over_the_ones_before(self, file):
        path = file(
            "[defaults]\ncompare_timeout = 1\n[compare]\ncompare_timeout = 2\n[compare.c1]\ncompare_timeout = 3\n"
        )
        layers = []
        layers.append(compare().config.compare_timeout)
        layers.append(compare({"config": file("[defaults]\ncompare_timeout = 1\n")}).config.compare_timeout)
        path = file(
            "[defaults]\ncompare_timeout = 1\n[compare]\ncompare_timeout = 2\n[compare.c1]\ncompare_timeout = 3\n"
        )
        layers.append(compare({"config": path, "id": "other"}).config.compare_timeout)
        layers.append(compare({"config": path, "id": "c1"}).config.compare_timeout)
        env = {"COLO_COMPARE_TIMEOUT": "4"}
        layers.append(compare({"config": path, "id": "c1"}, env).config.compare_timeout)
        env["COLO_COMPARE_COMPARE_TIMEOUT"] = "5"
        layers.append(compare({"config": path, "id": "c1"}, env).config.compare_timeout)
        layers.append(compare({"config": path, "id": "c1", "compare_timeout": "6"}, env).config.compare_timeout)
        assert layers == [3000, 1, 2, 3, 4, 5, 6]

    def test_the_file_may_come_from_the_environment(self, file):
        path = file("[compare]\nmax_flows = 99\n")
        assert compare(environ={"COLO_CONFIG": path}).config.max_flows == 99
        assert compare(environ={"COLO_COMPARE_CONFIG": path}).config.max_flows == 99

    def test_the_only_table_of_a_role_is_ours(self, file):
        path = file("[compare.c7]\nmax_flows = 99\n")
        found = compare({"config": path})
        assert (found.common.id, found.config.max_flows) == ("c7", 99)
        path = file("[compare.c7]\nmax_flows = 99\n[compare.c8]\nmax_flows = 88\n")
        assert compare({"config": path}).config.max_flows == 65536

    def test_the_id_may_come_from_the_environment(self, file):
        path = file("[compare.c7]\nmax_flows = 99\n[compare.c8]\nmax_flows = 88\n")
        assert compare({"config": path}, {"COLO_COMPARE_ID": "c8"}).config.max_flows == 88

    def test_an_empty_variable_is_none(self):
        assert compare(environ={"COLO_COMPARE_TIMEOUT": ""}).config.compare_timeout == 3000

    def test_common_options_come_from_everywhere_as_well(self, file):
        path = file('[defaults]\nlog_level = "debug"\ndrain_timeout = 7\n')
        found = compare({"config": path}, {"COLO_DRAIN_TIMEOUT": "8"})
        assert (found.common.log_level, found.common.drain_timeout) == ("debug", 8.0)


class TestNames:
    @pytest.mark.parametrize("name", ["compare_timeout", "compare-timeout"])
    def test_dash_and_underscore_are_the_same_in_files(self, file, name):
        for section in ("defaults", "compare", "compare.c1"):
            path = file(f"[{section}]\n{name} = 77\n")
            assert compare({"config": path, "id": "c1"}).config.compare_timeout == 77

    def test_an_endpoint_of_a_port_needs_the_role_in_front(self):
        table = services()["mirror"].table()
        assert environment("mirror", table, {"COLO_OUTDEV": "ipc:///x"}) == {}
        assert environment("mirror", table, {"COLO_MIRROR_OUTDEV": "ipc:///x"})["outdev"].value == "ipc:///x"

    def test_netdevs_socket_and_the_frame_are_known_to_all(self):
        table = services()["mirror"].table()
        found = environment("mirror", table, {"COLO_NETDEV": "/run/n.sock", "COLO_FRAME": "ipc:///f"})
        assert found == {"netdev_socket": ("/run/n.sock", "COLO_NETDEV"), "frame": ("ipc:///f", "COLO_FRAME")}

    def test_several_values_are_split_at_spaces(self):
        found = environment("netdev", services()["netdev"].table(), {"COLO_NETDEV_TAP": "lan,bridge=b guest"})
        assert found["tap"].value == ["lan,bridge=b", "guest"]

    def test_a_variable_that_is_another_roles_is_not_ours(self):
        # COLO_COMPARE_TIMEOUT is an option of compare, or COLO_<OPTION> of everybody: fine for compare itself.
        assert environment("compare", TABLE, {"COLO_COMPARE_TIMEOUT": "5"})["compare_timeout"].value == "5"
        assert environment("mirror", services()["mirror"].table(), {"COLO_COMPARE_TIMEOUT": "5"}) == {}


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("[compare]\ncompare_timuot = 5\n", r"\[compare\]: unknown option 'compare_timuot'; did you mean"),
            ("[compare.c1]\nfoo = 5\n", r"\[compare.c1\]: unknown option 'foo'"),
            ("[defaults]\nfoo = 5\n", r"\[defaults\]: unknown option 'foo'"),
            ("[compare.c1.deeper]\nx = 1\n", r"\[compare.c1\]: unknown option 'deeper'"),
            ("[compare]\ncompare_timeout = 0\n", r"\[compare\] compare_timeout: at least 1"),
            ('[compare]\nmode = "sometimes"\n', r"\[compare\] mode: one of enforce, shadow, bypass"),
            ("[compare]\nnonsense\n", "colo.toml: .*line 2"),
            ("defaults = 5\n", r"\[defaults\]: a table is expected"),
            ("compare = 5\n", r"\[compare\]: a table is expected"),
            ("[compare]\nc1 = 5\n", r"\[compare\]: unknown option 'c1'"),
        ],
    )
    def test_by_file_and_table(self, file, text, named):
        path = file(text)
        with pytest.raises(ConfigError, match=named) as caught:
            compare({"config": path, "id": "c1"})
        assert str(path) in str(caught.value)

    def test_other_roles_options_may_stand_in_defaults(self, file):
        path = file("[defaults]\nhold_ms = 5\ncompare_timeout = 9\n")
        assert compare({"config": path}).config.compare_timeout == 9

    @pytest.mark.parametrize(
        ("environ", "named"),
        [
            ({"COLO_COMPARE_NONSENSE": "1"}, "environment COLO_COMPARE_NONSENSE: unknown option"),
            ({"COLO_COMPARE_COMPARE_TIMEOUT": "soon"}, "COLO_COMPARE_COMPARE_TIMEOUT: a whole number"),
            ({"COLO_LOG_LEVEL": "loud"}, "COLO_LOG_LEVEL: one of debug"),
            ({"COLO_CONFIG": "/nowhere/colo.toml"}, "--config /nowhere/colo.toml: No such file"),
        ],
    )
    def test_by_variable(self, environ, named):
        with pytest.raises(ConfigError, match=named):
            compare(environ=environ)

    @pytest.mark.parametrize("name", ["peer", "*", "x" * 65])
    def test_ids_that_would_be_confused(self, name):
        with pytest.raises(ConfigError, match="--id"):
            compare({"id": name})

    def test_a_file_that_is_none(self, tmp_path):
        with pytest.raises(ConfigError, match="--config"):
            load(str(tmp_path))
        (tmp_path / "x").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="--config"):
            load(str(tmp_path / "x"))


def test_only():
    assert only({}, "compare") == ""
    assert only({"compare": {"max_flows": 1}}, "compare") == ""
    assert only({"compare": {"max_flows": 1, "a": {}}}, "compare") == "a"
    assert only({"compare": {"a": {}, "b": {}}}, "compare") == ""


def test_where_a_value_came_from_is_kept(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[compare]\nmax-flows = 9\n")
    found = gather("compare", TABLE, {"config": str(path), "mode": "shadow"}, {"COLO_LOG_LEVEL": "info"}, anywhere)
    assert found["max_flows"] == (9, f"{path}: [compare] max-flows")
    assert found["log_level"] == ("info", "COLO_LOG_LEVEL")
    assert found["mode"] == ("shadow", "")


@pytest.mark.parametrize("role", services())
def test_every_service_has_a_table_without_contradictions(role):
    table = services()[role].table()
    assert all(name == one.name for name, one in table.items())
    assert all(one.help for one in table.values())
    for one in table.values():
        if not one.required and one.default not in ("", ()):
            assert one.parse(one.default) == one.default


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 20_000 + "]" * 20_000, "x = " + "{a=" * 20_000 + "1" + "}" * 20_000,
        "x" + ".x" * 20_000 + " = 1",
        "[compare." + "x." * 20_000 + "x]", "max_flows = " + "9" * 5000, "x = 2024-13-45", "x = 1e9999999999", "\x00",
    ],
)  # fmt: skip
def test_a_file_that_no_parser_likes_is_one_line(file, text):
    """Nested without end, numbers without end: `ConfigError` names the file."""
    path = file(f"[compare]\n{text}\n")
    with pytest.raises(ConfigError) as error:
        compare({"config": path})
    assert path in str(error.value)
    assert len(str(error.value)) < 1000
