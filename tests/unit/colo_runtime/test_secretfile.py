"""The pair's secret: made once, read at the start and at SIGHUP, and required where there are keys."""

import stat
from collections import Counter

import pytest

from colo_cli.checking import check_file
from colo_cli.cli import main
from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_proto.claim import derive
from colo_proto.errors import ConfigError
from colo_runtime import curve
from colo_runtime.secretfile import load_secrets, read_secrets, write_secret
from colo_runtime.service import resolve, services

ONE, TWO = "00ff" * 16, "ABCD" * 16


def colo(capsys, *arguments):
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


def test_keygen_makes_it_once(capsys, tmp_path):
    status, out, err = colo(capsys, "keygen", "--out", str(tmp_path / "new"), "--name", "pair", "--pair")
    path = tmp_path / "new" / "pair.pair_secret"
    assert (status, out) == (0, "")
    assert f"{path}: --pair-secret of both frames" in err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (secret,) = read_secrets(str(path))
    assert len(secret) == 32
    assert secret.hex() not in err
    assert [one.name for one in path.parent.iterdir()] == ["pair.pair_secret"], "no key pair"
    status, _, err = colo(capsys, "keygen", "--out", str(tmp_path / "new"), "--name", "pair", "--pair")
    assert (status, err.count("\n")) == (2, 1)
    assert "not overwritten" in err
    assert read_secrets(str(path)) == [secret]
    assert colo(capsys, "keygen", "--out", str(tmp_path), "--name", "../x", "--pair")[0] == 2


def test_no_two_are_alike(tmp_path):
    assert len({read_secrets(str(write_secret(str(tmp_path), name)))[0] for name in "abc"}) == 3


def test_several_lines_are_read_in_order(tmp_path):
    path = tmp_path / "s"
    path.write_text(f'# the new one\npair-secret = "{ONE}"\n# the old one\n  pair-secret={TWO}\n')
    assert read_secrets(str(path)) == [bytes.fromhex(ONE), bytes.fromhex(TWO)]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "1 to 4 lines"),
        (f'pair-secret = "{ONE}"\n' * 5, "1 to 4 lines"),
        ('pair-secret = ""', "64 hexadecimal digits"),
        ('pair-secret = "colo"', "64 hexadecimal digits"),
        (f'pair-secret = "{ONE}0"', "64 hexadecimal digits"),
        (f'pair-secret = "{"x" * 64}"', "64 hexadecimal digits"),
        (f'secret-key = "{ONE}"', "1 to 4 lines"),
        (b"\xff\xfe", "not text"),
        (None, "No such file"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, wrong):
    path = tmp_path / "s"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=wrong) as error:
        read_secrets(str(path))
    assert str(error.value).startswith(f"--pair-secret {path}: ")
    assert ONE not in str(error.value)


# -- where there are keys --------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path):
    curve.write_pair(str(tmp_path), "p")
    return {"curve_secret": f"{tmp_path}/p.key_secret", "curve_peers": f"{tmp_path}/p.key"}


def frame(**flags):
    service = services()["frame"]
    return resolve(service, service.table(), {"listen": "ipc:///run/colo/control.sock", **flags}, {})


@pytest.mark.parametrize("peer", ["tcp://192.0.2.1:9005", "tcp://127.0.0.1:9005?server=on"])
def test_a_frame_with_keys_needs_it(keys, peer):
    with pytest.raises(ConfigError, match="--pair-secret: required"):
        frame(peer=peer, **keys)
    with pytest.raises(ConfigError, match="--pair-secret: required"):
        frame(peer=peer, insecure="on", **keys)


def test_a_frame_with_keys_and_secret(keys, tmp_path):
    path = str(write_secret(str(tmp_path), "pair"))
    assert frame(peer="tcp://192.0.2.1:9005", pair_secret=path, **keys).config.pair_secret == path
    with pytest.raises(ConfigError, match="No such file"):
        frame(peer="tcp://192.0.2.1:9005", pair_secret=path + "x", **keys)


def test_without_keys_or_without_a_pair_it_may_be_left_out(keys):
    assert frame(peer="tcp://127.0.0.1:9005").config.pair_secret == ""
    assert frame(peer="tcp://192.0.2.1:9005", insecure="on").config.pair_secret == ""
    assert frame(**keys).config.pair_secret == ""


def test_check_says_so(capsys, keys, tmp_path):
    lines = "\n".join(f'{name} = "{value}"' for name, value in keys.items())
    path = tmp_path / "colo.toml"
    text = f'[defaults]\n{lines}\n[frame.f]\nlisten = "ipc:///run/c.sock"\npeer = "tcp://192.0.2.1:9005"\n'
    path.write_text(text)
    assert "--pair-secret: required with keys" in check_file(str(path), {})[1][0]
    status, _, err = colo(capsys, "check", str(path))
    assert (status, err.count("\n")) == (2, 1)
    path.write_text(text + f'pair_secret = "{write_secret(str(tmp_path), "pair")}"\n')
    assert check_file(str(path), {})[1] == []
    assert check_file(str(path), {"COLO_PAIR_SECRET": f"{tmp_path}/none"})[1] != [], "the environment goes before"


# -- in a frame ------------------------------------------------------------------------------------


def test_the_frame_seals_with_the_first_and_keeps_what_it_has_when_the_file_is_wrong(tmp_path):
    core = Frame(FrameConfig(peer="tcp://192.0.2.1:9005"), 7)
    path = tmp_path / "s"
    path.write_text(f'pair-secret = "{ONE}"\npair-secret = "{TWO}"\n')
    path.chmod(0o600)
    (loaded,) = load_secrets(str(path), core.use_secrets)
    assert (loaded.event, loaded.fields) == ("secrets.loaded", {"secrets": 2})
    wanted = [derive(bytes.fromhex(one), "colo") for one in (ONE, TWO)]
    assert core.side.ownership._keys == wanted
    assert core.status(0.0)["leadership"]["sealed"] is True
    path.write_text("nothing\n")
    with pytest.raises(ConfigError):
        load_secrets(str(path), core.use_secrets)
    assert core.side.ownership._keys == wanted


def test_a_secret_that_everybody_may_read_is_warned_about(tmp_path):
    path = write_secret(str(tmp_path), "pair")
    path.chmod(0o644)
    logs = load_secrets(str(path), Frame(FrameConfig(), 7).use_secrets)
    assert [(log.level, log.event) for log in logs] == [("info", "secrets.loaded"), ("warning", "key.exposed")]


def test_without_a_file_nothing_happens():
    core = Frame(FrameConfig(peer="tcp://192.0.2.1:9005"), 7)
    assert load_secrets("", core.use_secrets) == []
    assert core.status(0.0)["leadership"]["sealed"] is False
    assert core.counters == Counter()
