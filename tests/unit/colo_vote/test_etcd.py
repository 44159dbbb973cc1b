"""The etcd store against a real etcd: the key, its end, its token; users, TLS; and answers that make no sense."""

import http.server
import json
import subprocess
import threading
import time

import pytest

from colo_vote.config import VoteConfig
from colo_vote.store import Holder, StoreError, open_store
from etcd import Etcd, needs_etcd
from runtime_helpers import free_port


def ports(count):
    return [(free_port(), free_port()) for _ in range(count)]


@pytest.fixture(scope="module")
def etcd():
    with Etcd(ports(1)) as one:
        yield one


def patiently(function):
    """What a function returns, once the store answers."""
    until = time.monotonic() + 20
    while True:
        try:
            return function()
        except StoreError:
            assert time.monotonic() < until
            time.sleep(0.1)


def store(where, **options):
    return open_store(VoteConfig(**{"store": where, "ttl": 2, **options}))


@needs_etcd
def test_one_holds_it_and_the_other_gets_it_when_it_is_given_up(etcd):
    a, b = (store(etcd.endpoints, pair="given-up") for _ in "ab")
    assert a.look() == Holder("", 0)
    first = a.hold("primary a")
    assert first == Holder("primary a", first.token, 2.0)
    assert b.hold("secondary b") == Holder("primary a", first.token)
    assert b.look() == Holder("primary a", first.token)
    assert a.hold("primary a") == first, "renewed, with the same token"
    b.release("secondary b")
    assert b.look().name == "primary a", "nobody gives up what is another's"
    a.release("primary a")
    second = b.hold("secondary b")
    assert second.name == "secondary b"
    assert second.token > first.token
    assert a.hold("primary a") == Holder("secondary b", second.token)


@pytest.mark.slow
@needs_etcd
def test_a_dead_holder_loses_it_after_its_time_to_live_and_not_before(etcd):
    a, b = (store(etcd.endpoints, pair="dead") for _ in "ab")
    asked = time.monotonic()
    a.hold("primary a")
    while b.hold("secondary b").name != "secondary b":
        assert time.monotonic() < asked + 2 + 1, "lease and one second"
        time.sleep(0.02)
    assert time.monotonic() >= asked + 2
    assert a.hold("primary a").name == "secondary b"


@pytest.mark.slow
@needs_etcd
def test_a_restarted_holder_goes_on_with_the_same_token(etcd):
    a = store(etcd.endpoints, pair="restarted")
    first = a.hold("primary a")
    a.close()
    again = store(etcd.endpoints, pair="restarted")
    assert again.hold("primary a") == first
    assert again.hold("primary a") == first
    # The lease of the one before ends, and the key does not end with it.
    until = time.monotonic() + 3.5
    while time.monotonic() < until:
        assert again.hold("primary a") == first
        time.sleep(0.3)


@needs_etcd
def test_a_key_that_was_deleted_by_hand_is_taken_anew_with_a_higher_token(etcd):
    a, b = (store(etcd.endpoints, pair="deleted") for _ in "ab")
    first = a.hold("primary a")
    b.release("primary a")
    second = a.hold("primary a")
    assert second.name == "primary a"
    assert second.token > first.token


@needs_etcd
def test_the_note_that_the_holder_is_alone_outlives_the_key_and_belongs_to_the_holder(etcd):
    a, b = (store(etcd.endpoints, pair="alone") for _ in "ab")
    first = a.hold("primary a", "no")
    assert first.alone == ""
    assert b.hold("secondary b", "yes").alone == "", "only the holder writes it"
    noted = a.hold("primary a", "yes")
    assert noted == Holder("primary a", first.token, 2.0, "primary a"), "the token stays"
    assert a.hold("primary a") == noted
    assert b.look().alone == "primary a"
    a.release("primary a")
    assert b.look() == Holder("", 0, alone="primary a")
    assert b.hold("secondary b").alone == "primary a", "whoever takes the key reads it at once"
    b.release("secondary b")
    assert a.hold("primary a", "no").alone == ""


@needs_etcd
def test_pairs_do_not_share_a_key(etcd):
    assert store(etcd.endpoints, pair="one").hold("primary a").ttl
    assert store(etcd.endpoints, pair="two").hold("secondary b").ttl


@pytest.mark.slow
@needs_etcd
def test_members_that_are_dead_or_hang_cost_little_and_one_without_a_majority_grants_nothing():
    with Etcd(ports(3)) as three:
        a = store(three.endpoints, ttl=4)
        assert a.hold("primary a").ttl
        three.kill(0)
        # If it was the leader, the others elect another one first.
        patiently(lambda: a.hold("primary a").ttl)
        began = time.monotonic()
        assert a.hold("primary a").ttl
        assert time.monotonic() < began + 4 / 5
        three.kill(1)
        until = time.monotonic() + 10
        with pytest.raises(StoreError):
            while time.monotonic() < until:
                a.hold("primary a")
                time.sleep(0.1)
        with pytest.raises(StoreError):
            store(three.endpoints, ttl=4).look()
        three.start(0).ready()
        assert patiently(lambda: a.hold("primary a").name) == "primary a"


@pytest.mark.slow
@needs_etcd
def test_a_user_and_a_password(tmp_path):
    password = tmp_path / "password"
    password.write_text("pass word\n")
    with Etcd(ports(1)) as one:
        url = f"http://{one.host}:{one.ports[0][0]}"

        def post(path, **body):
            import urllib.request

            request = urllib.request.Request(url + path, json.dumps(body).encode(), method="POST")
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.load(answer)

        for name, role in (("root", "root"), ("colo", "colo")):
            post("/v3/auth/user/add", name=name, password="pass word")
            post("/v3/auth/role/add", name=role)
            post("/v3/auth/user/grant", user=name, role=role)
        keys = {"key": "L2NvbG8vY29sby93cml0ZXIv", "range_end": "L2NvbG8vY29sby93cml0ZXIw"}  # /colo/colo/writer/, ...0
        post("/v3/auth/role/grant", name="colo", perm={"permType": "READWRITE", **keys})
        post("/v3/auth/enable")
        user = {"store_user": "colo", "store_password": str(password), "ttl": 10}
        a = store(one.endpoints, **user)
        assert a.hold("primary a").ttl
        # The member is restarted, and has forgotten the tokens that it gave.
        one.kill(0)
        one.start(0)
        assert patiently(lambda: a.hold("primary a").name) == "primary a"
        a.release("primary a")
        assert a.look().name == ""
        with pytest.raises(StoreError):
            store(one.endpoints).hold("primary a")
        with pytest.raises(StoreError):
            store(one.endpoints, pair="another", **user).hold("primary a")
        password.write_text("wrong")
        with pytest.raises(StoreError):
            store(one.endpoints, **user).hold("primary a")


def certificates(directory):
    """A CA, and certificates of a server and of a client, made by openssl."""

    def openssl(*argv):
        subprocess.run(["openssl", *argv], cwd=directory, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    (directory / "ext").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    for name in ("server", "client"):
        openssl(*new, "-subj", "/CN=127.0.0.1", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")


@pytest.mark.slow
@needs_etcd
def test_tls_with_a_certificate_of_ours(tmp_path):
    certificates(tmp_path)
    tls = [
        "--cert-file", tmp_path / "server.pem", "--key-file", tmp_path / "server.key", "--client-cert-auth",
        "--trusted-ca-file", tmp_path / "ca.pem",
    ]  # fmt: skip
    with Etcd(ports(1), tls=tls) as one:
        ca = {"store_ca": str(tmp_path / "ca.pem")}
        ours = {"store_cert": str(tmp_path / "client.pem"), "store_key": str(tmp_path / "client.key")}
        assert store(one.endpoints, **ca, **ours).hold("primary a").ttl
        for wrong in (ca, {}):
            with pytest.raises(StoreError):
                store(one.endpoints, **wrong).hold("primary a")
        (tmp_path / "other").mkdir()
        certificates(tmp_path / "other")
        with pytest.raises(StoreError):
            store(one.endpoints, store_ca=str(tmp_path / "other" / "ca.pem"), **ours).hold("primary a")


KEY = b'{"kvs": [{"key": "L2NvbG8vY29sby93cml0ZXIvaG9sZGVy", "value": "YQ==", "create_revision": %s}]}'
GARBAGE = [
    b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"kvs": 3}', b'{"kvs": [3]}', b'{"kvs": [{}]}',
    b'{"kvs": [{"value": 7, "create_revision": "1"}]}', b'{"kvs": [{"value": "!", "create_revision": "1"}]}',
    b'{"kvs": [{"value": "/w==", "create_revision": "1"}]}', KEY % b'"x"', KEY % b'"-1"', KEY % b'"1e99"',
    KEY % b'"99999999999999999999"', KEY % b"[]", b'{"error": "no leader"}', b"[" * 50000,
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_an_answer_that_makes_no_sense_is_an_error_of_the_store(garbage):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(garbage)))
            self.end_headers()
            self.wfile.write(garbage)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(StoreError):
                store(f"etcd://127.0.0.1:{server.server_address[1]}").look()
        finally:
            server.shutdown()
            thread.join()


def test_nobody_listens():
    with pytest.raises(StoreError, match="refused"):
        store(f"etcd://127.0.0.1:{free_port()}").hold("primary a")
