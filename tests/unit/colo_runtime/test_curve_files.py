"""Keys for CURVE: where they are needed, their files, and what the command line says about them."""

import os
import stat

import pytest

from colo_cli.cli import main
from colo_proto.errors import ConfigError
from colo_runtime import curve
from runtime_helpers import free_port, sink

# -- start ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:9003?server=on", "tcp://192.0.2.1:9003", "tcp://[::]:9003?server=on"]
)
def test_a_link_between_hosts_needs_keys(bench, address):
    with pytest.raises(ConfigError, match="--insecure"):
        bench.shell(sink(), "b", in_=address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{}?server=on", "tcp://localhost:{}", "tcp://[::1]:{}"])
def test_a_link_to_oneself_does_not(bench, address):
    bench.shell(sink(), "b", in_=address.format(free_port()))


def test_insecure_has_to_be_said(bench):
    bench.shell(sink(), "b", in_=f"tcp://0.0.0.0:{free_port()}?server=on", insecure=True)


def test_sockets_of_a_host_are_for_their_owner_and_group_alone(bench):
    before = os.umask(0)
    try:
        bench.shell(sink(), "b", in_=bench.ipc("mine") + "?server=on")
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(bench.path("mine.sock")).st_mode) == 0o660


# -- files ------------------------------------------------------------------------------------------


def test_a_pair_of_files(tmp_path):
    public_file, secret_file, public = curve.write_pair(str(tmp_path / "new" / "folder"), "p")
    assert stat.S_IMODE(secret_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(public_file.stat().st_mode) == 0o644
    assert "secret" not in public_file.read_text()
    keys = curve.load(str(secret_file), str(public_file))
    assert keys.public.decode() == public
    assert dict(keys.peers) == {public.encode(): "p"}
    with pytest.raises(ConfigError, match="not overwritten"):
        curve.write_pair(str(public_file.parent), "p")


def test_files_are_those_of_zmq_auth(tmp_path):
    certs = pytest.importorskip("zmq.auth.certs")
    public_file, secret_file = certs.create_certificates(tmp_path, "theirs")
    theirs = curve.load(secret_file, public_file)
    assert certs.load_certificate(secret_file) == (theirs.public, theirs.secret)
    _, ours, public = curve.write_pair(str(tmp_path), "ours")
    assert certs.load_certificate(ours)[0] == public.encode()


def test_a_list_of_peers_may_be_one_file(tmp_path):
    keys = [curve.write_pair(str(tmp_path), name)[2].encode() for name in "abc"]
    (tmp_path / "peers").write_text("".join((tmp_path / f"{name}.key").read_text() for name in "abc"))
    assert set(curve.load(str(tmp_path / "a.key_secret"), str(tmp_path / "peers")).peers) == set(keys)


@pytest.mark.parametrize(
    ("secret", "peers", "named"),
    [
        ("missing", "p.key", "missing: No such file"),
        ("p.key", "p.key", "no line secret-key"),
        ("p.key_secret", "missing", "missing: No such file"),
        ("p.key_secret", "", "both or neither"),
        ("p.key_secret", "junk", "not text"),
        ("p.key_secret", "short", "40 characters"),
        ("p.key_secret", "empty", "no line public-key"),
        ("mixed", "p.key", "does not belong"),
    ],
)
def test_what_is_wrong_with_files_is_said(tmp_path, secret, peers, named):
    curve.write_pair(str(tmp_path), "p")
    curve.write_pair(str(tmp_path), "q")
    (tmp_path / "junk").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "short").write_text('public-key = "abc"\n')
    (tmp_path / "empty").write_text("curve\n")
    mine = (tmp_path / "p.key_secret").read_text().splitlines()[-1]
    (tmp_path / "mixed").write_text((tmp_path / "q.key").read_text() + mine + "\n")
    with pytest.raises(ConfigError, match=named):
        curve.load(*(str(tmp_path / name) if name else "" for name in (secret, peers)))


# -- the command line -------------------------------------------------------------------------------


def colo(capsys, *arguments):
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


def test_keygen(capsys, tmp_path):
    status, out, err = colo(capsys, "keygen", "--out", str(tmp_path), "--name", "primary")
    assert status == 0
    assert f'public-key = "{out.strip()}"' in (tmp_path / "primary.key").read_text()
    assert "--curve-secret" in err
    assert out.strip() not in err
    status, _, err = colo(capsys, "keygen", "--out", str(tmp_path), "--name", "primary")
    assert (status, err.count("\n")) == (2, 1)
    assert colo(capsys, "keygen", "--out", str(tmp_path), "--name", "../x")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "--primary-in", "ipc:///a", "--outdev", "ipc:///b", "--secondary-in", "tcp://192.0.2.1:9004"),
        ("mirror", "--netdev", "ipc:///a", "--next", "ipc:///b", "--outdev", "tcp://0.0.0.0:9003?server=on"),
        ("frame", "--listen", "ipc:///a", "--peer", "tcp://0.0.0.0:9005?server=on"),
        ("mirror", "--netdev", "ipc:///a", "--next", "ipc:///b", "--outdev", "ipc:///c", "--frame", "tcp://10.0.0.1:1"),
    ],
)
def test_no_start_between_hosts_without_keys(capsys, arguments):
    status, _, err = colo(capsys, *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert "tcp://" in err
    assert "--insecure" in err


def test_check_looks_at_keys(capsys, tmp_path, monkeypatch):
    curve.write_pair(str(tmp_path), "p")
    file = tmp_path / "colo.toml"
    text = '[mirror.m0]\nnetdev = "ipc:///a"\nnext = "ipc:///b"\noutdev = "tcp://0.0.0.0:9003?server=on"\n'

    def check(more):
        file.write_text(text + more)
        return colo(capsys, "check", "--config", str(file))

    status, _, err = check("")
    assert status == 2
    assert "--insecure" in err
    assert check("insecure = true\n")[0] == 0
    keys = f'curve_secret = "{tmp_path}/p.key_secret"\ncurve_peers = "{tmp_path}/{{}}"\n'
    status, out, _ = check(keys.format("p.key"))
    assert status == 0
    assert "p.key_secret" in out
    status, _, err = check(keys.format("nobody.key"))
    assert status == 2
    assert "nobody.key: No such file" in err
    monkeypatch.setenv("COLO_CURVE_SECRET", f"{tmp_path}/p.key")
    status, _, err = check(keys.format("p.key"))
    assert status == 2
    assert "no line secret-key" in err


def test_insecure_alone_says_on(bench):
    port = free_port()
    bench.colo(
        "redirector", "--insecure", "--id", "r", "--netdev", f"chardev+unix://{bench.path('c')}?server=on",
        "--outdev", f"tcp://0.0.0.0:{port}?server=on",
    )  # fmt: skip
    bench.unix(bench.path("c"))
