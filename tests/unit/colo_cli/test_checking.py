"""`colo check`: everything that is wrong with a file, each on its line; or all of it, resolved."""

import tomllib

import pytest

from colo_cli.checking import check_file, render
from colo_proto.errors import ConfigError


@pytest.fixture
def check(tmp_path):
    path = tmp_path / "colo.toml"

    def run(text, **environ):
        path.write_text(text)
        resolved, errors = check_file(str(path), environ)
        return resolved, [error.removeprefix(f"{path}: ") for error in errors]

    return run


def test_nothing_is_fine(check):
    assert check("") == ({}, [])


def test_defaults_reach_every_table_that_knows_them(check):
    resolved, errors = check(
        '[defaults]\nmax_flows = 9\nlog_level = "debug"\n[compare.a]\n[compare.b]\nmax_flows = 8\n[mirror.m]\n'
    )
    assert errors == []
    assert (resolved["compare"]["a"]["max_flows"], resolved["compare"]["b"]["max_flows"]) == (9, 8)
    assert resolved["mirror"]["m"]["log_level"] == "debug"
    assert "max_flows" not in resolved["mirror"]["m"]


def test_a_role_without_names_is_one_process(check):
    resolved, _ = check("[compare]\nmax_flows = 9\n")
    assert resolved["compare"]["compare"]["max_flows"] == 9


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("x = 1", ["unknown table 'x'; known: "]),
        ("[mirrow]", ["unknown table 'mirrow'; did you mean 'mirror'?"]),
        ("defaults = 1", ["[defaults]: a table is expected"]),
        ("mirror = 1", ["[mirror]: a table is expected"]),
        (
            "[defaults]\nx = 1\n[mirror.m]\ny = 1\n",
            ["[defaults]: unknown option 'x'", "[mirror.m]: unknown option 'y'"],
        ),
        (
            "[compare]\nmax_flows = 0\nmode = 'no'\nz = 1\n",
            ["[compare] max_flows: at least 8", "[compare] mode: one of", "[compare]: unknown option 'z'"],
        ),
        ("[compare.c.deeper]\nx = 1\n", ["[compare.c]: unknown option 'deeper'"]),
        ("[redirector.r]\nnetdev = 'tap://x'\n", ["[redirector.r]: redirector needs --indev or --outdev"]),
        ("[redirector.peer]\nindev='ipc:///a'\noutdev='ipc:///b'\n", ["[redirector.peer]: --id peer"]),
        ("[mirror.m]\noutdev = 'lan'\n", ["[mirror.m] outdev: endpoint 'lan'"]),
    ],
)
def test_every_error_has_its_line(check, text, errors):
    _, found = check(text)
    assert len(found) == len(errors), found
    for expected in errors:
        assert any(line.startswith(expected) for line in found), found


def test_one_wrong_table_does_not_hide_another(check):
    resolved, errors = check("[mirror.a]\nx = 1\n[mirror.b]\n[compare.c]\nmax_flows = 99\n")
    assert len(errors) == 1
    assert resolved["compare"]["c"]["max_flows"] == 99


def test_the_environment_is_checked_with_it(check):
    _, errors = check("[compare.c]\n", COLO_COMPARE_MAX_FLOWS="few")
    assert errors == ["[compare.c]: COLO_COMPARE_MAX_FLOWS: a whole number (flows) expected, not 'few'"]


def test_what_is_rendered_reads_back_as_the_same(check):
    text = '[defaults]\nhttp = "127.0.0.1:9100"\n[netdev.n]\nlisten = "/run/n"\ntap = ["lan,bridge=b", "guest"]\n'
    text += '["mirror"."m 0\\"\\\\"]\n'
    resolved, errors = check(text)
    assert errors == []
    rendered = render(resolved)
    assert tomllib.loads(rendered)["netdev"]["n"]["tap"] == ["lan,bridge=b", "guest"]
    again, errors = check(rendered)
    assert errors == []
    assert again == resolved


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        check_file(str(tmp_path / "none"), {})
