"""Rules and evidence through the whole chain: the answers of a guest differ, and are exempted, masked, or caught."""

import json
import shutil
import subprocess

import pytest

GUEST = (
    "python3 -c 'import os, socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((str(), 7))\n"
    "while True:\n    data, peer = s.recvfrom(2000); s.sendto(data + os.urandom(8), peer)'"
)
CLIENT = (
    "python3 -c 'import os, socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(30)\n"
    'for n in range(5): s.sendto(b"x" * 40, (os.environ["COLO_GUEST"], 7)); assert len(s.recvfrom(2000)[0]) == 48\''
)


def test_a_difference_leaves_a_file_that_tshark_opens(lab, tmp_path):
    where = tmp_path / "evidence"
    run = lab("--guest", GUEST, "--option", f"compare.evidence-dir={where}", client=CLIENT)
    assert run.status == 0, run.err + run.out
    (last,) = run.report["compare"]["last"]
    assert (last["reason"], last["byte"]) == ("datagram", 40)
    assert last["evidence"] == f"{where}/comp0-0000.pcapng"
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed")
    fields = ["frame.interface_name", "frame.comment", "udp.payload"]
    argv = [tshark, "-r", last["evidence"], "-T", "json", *(word for field in fields for word in ("-e", field))]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=120)
    rows = [one["_source"]["layers"] for one in json.loads(done.stdout)]
    by_side = {row["frame.interface_name"][0]: row for row in rows}
    assert set(by_side) == {"primary", "secondary"}
    assert "reason datagram" in by_side["primary"]["frame.comment"][0]
    payloads = [bytes.fromhex(row["udp.payload"][0].replace(":", "")) for row in by_side.values()]
    assert payloads[0][:40] == payloads[1][:40] == b"x" * 40


@pytest.mark.parametrize(
    ("rule", "cause"), [("pass udp guest-port 7", "rule"), ("compare udp guest-port 7 mask 40:8", "compared")]
)
def test_rules_of_the_frame_reach_the_worker(lab, tmp_path, rule, cause):
    file = tmp_path / "lab.rules"
    file.write_text(rule + "\n")
    run = lab("--guest", GUEST, "--option", f"frame-p.rules={file}", client=CLIENT)
    assert run.status == 0, run.err + run.out
    compare = run.report["compare"]
    assert compare["miscompares"] == 0
    assert compare["checkpoints_wanted"] == {}
    if cause != "compared":
        assert compare["released_by"][cause] == 5
