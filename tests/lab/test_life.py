"""How a lab begins and ends: exit statuses, signals, processes that die, two labs at once. Nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from colo_netdev import netns

from .conftest import CLIENT, LAB, SERVER, alive, inhabitants, invoke, namespaces, wait_for


def gone(state):
    """Check that nothing of a lab remains after its end."""
    assert not Path(state["directory"]).exists()
    wait_for(lambda: not any(alive(p["pid"]) for p in state["processes"] if p["pid"]), 10, "its processes to end")


@pytest.mark.parametrize("status", [0, 3, 77])
def test_it_exits_as_the_client_does(lab, status):
    run = lab(client=f"exit {status}")
    assert run.status == status
    assert run.report["exit"] == status


def test_a_client_that_is_killed_or_missing(tmp_path):
    assert invoke(client="kill -9 $$").status == 128 + signal.SIGKILL
    done = subprocess.run([*LAB, "--", "/no/such/program"], capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "/no/such/program" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_client_sees_addresses_and_standard_streams():
    argv = [*LAB, "-q", "--", "sh", "-c", "cat; echo $COLO_GUEST $COLO_GUEST6; echo to-stderr >&2"]
    done = subprocess.run(argv, input="through\n", capture_output=True, text=True, check=False)
    assert done.stdout == "through\n10.77.0.2 fd77::2\n"
    assert done.stderr == "to-stderr\n"


def test_a_timeout(lab):
    run = lab("--timeout", "0.5", client="sleep 60")
    assert run.status == 124
    assert run.report["exit"] == 124
    assert run.report["seconds"] < 10


def test_the_state_file(background):
    process, read = background("--guest", SERVER, "--wiring", "faithful", "--compare", "2")
    # The file is written when the lab is up, and again for each program that starts later, such as the client.
    wait_for(lambda: any(p["id"] == "client" for p in read()["processes"]), 20, "the client")
    state = read()
    assert state["pid"] == process.pid
    ids = {p["id"] for p in state["processes"]}
    assert {"m0", "redire0", "redire1", "comp0", "comp1", "rew0", "f1", "f2", "frame-p", "frame-s"} <= ids
    assert {"netdev-p", "netdev-s", "guest-p", "guest-s", "client"} <= ids
    for one in state["processes"]:
        assert alive(one["pid"]), one
        assert os.stat(f"/proc/{one['pid']}/ns/net").st_ino == os.stat(state["namespaces"][one["host"]]).st_ino
    mirror = next(p for p in state["processes"] if p["id"] == "m0")
    assert mirror["endpoints"]["netdev"].startswith("tap://lan-p?")
    assert b"colo_mirror" in Path(f"/proc/{mirror['pid']}/cmdline").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_everything_down(background, number):
    process, read = background("--guest", SERVER, client="sleep 61 & sleep 60")
    state = read()
    inodes = namespaces(state)
    os.kill(process.pid, number)
    assert process.wait(15) == 128 + number
    gone(state)
    assert inhabitants(inodes) == []
    assert "Traceback" not in process.stderr.read()


def test_a_signal_while_it_starts(tmp_path):
    # This folder has a short name, because a lab uses another one if the paths of its sockets would be too long.
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TMPDIR": folder}
        process = subprocess.Popen([*LAB, "--", "sleep", "60"], stderr=subprocess.PIPE, text=True, env=env)
        wait_for(lambda: list(Path(folder).glob("colo-lab-*")), 20, "it to begin")
        process.terminate()
        assert process.wait(15) == 128 + signal.SIGTERM
        assert "Traceback" not in process.stderr.read()
        process.stderr.close()
        assert not list(Path(folder).glob("colo-lab-*"))


def test_a_killed_lab_leaves_nothing(background):
    process, read = background("--guest", f"sleep 1000 & {SERVER}", client="(sleep 1000 &) ; sleep 1000")
    state = read()
    inodes = namespaces(state)
    assert len(inhabitants(inodes)) > 10
    process.kill()
    process.wait()
    wait_for(lambda: not inhabitants(inodes), 10, "its processes to end")
    wait_for(lambda: not Path(state["directory"]).exists(), 10, "its directory to go")
    gone(state)


EVERYONE = ["m0", "redire1", "redire0", "comp0", "f1", "f2", "rew0", "frame-p", "frame-s", "netdev-p", "netdev-s"]


@pytest.mark.parametrize("name", EVERYONE)
def test_whoever_dies_comes_back_and_traffic_goes_on(background, tmp_path, name):
    ask = f"{CLIENT} http --count 20 --timeout 20"
    wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    process, read = background("--guest", SERVER, client=f"{ask} && touch {tmp_path}/one && {wait} && {ask}")
    wait_for((tmp_path / "one").exists, 20, "the first requests")

    def pid():
        return next(p["pid"] for p in read()["processes"] if p["id"] == name)

    victim = pid()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: pid() not in (0, victim), 20, f"{name} to be restarted")
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=40)
    assert process.returncode == 0, out + err
    assert out.count('"wrong": 0') == 2


def test_no_restart(background):
    process, read = background("--no-restart")
    victim = next(p for p in read()["processes"] if p["id"] == "m0")
    os.kill(victim["pid"], signal.SIGKILL)
    wait_for(lambda: next(p for p in read()["processes"] if p["id"] == "m0")["pid"] == 0, 10, "the state to say so")
    process.terminate()
    assert process.wait(15) == 128 + signal.SIGTERM


def test_two_at_once(background, tmp_path):
    ask = f"{CLIENT} http --count 20"
    wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    one, read_one = background("--guest", SERVER, name="one")
    two, read_two = background(
        "--guest", SERVER, name="two", client=f"{ask}; {wait}; {ask}; touch {tmp_path}/done; sleep 60"
    )
    assert not namespaces(read_one()) & namespaces(read_two())
    one.terminate()
    assert one.wait(15) == 128 + signal.SIGTERM
    assert all(alive(p["pid"]) for p in read_two()["processes"])
    (tmp_path / "go").touch()
    wait_for((tmp_path / "done").exists, 40, "the other's requests")
    two.terminate()
    two.wait(15)
    assert two.stdout.read().count('"wrong": 0') == 2


@pytest.mark.parametrize(
    ("options", "status", "names"),
    [
        (["--wiring", "loose"], 2, "loose"),
        (["--compare", "0"], 2, "--compare 0"),
        (["--secondary-guest", "x"], 2, "--secondary-guest"),
        (["--option", "nonsense"], 2, "nonsense"),
        (["--no-such-option"], 2, "no-such-option"),
        (["--state", "/does/not/exist/state"], 2, "/does/not/exist/state"),
        (["--option", "m0.no-such=1"], 1, "no-such"),
        (["--option", "comp.rules=x"], 2, "no role or process comp; netdev, "),
        (["--guest", "echo it broke >&2; exit 9"], 1, "it broke"),
    ],
)
def test_what_is_wrong_is_one_line(options, status, names):
    done = subprocess.run([*LAB, *options, "--", "true"], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert names in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_client_command():
    done = subprocess.run(LAB, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "CLIENT" in done.stderr


def test_names_with_underscores_are_the_same_options():
    assert invoke("--guest_wait", "0", "--compare_timeout", "500", client="true").status == 0


def test_the_guests_are_replicas(background):
    _, read = background("--guest", SERVER)
    state = read()
    seen = []
    for name in ("guest-p", "guest-s"):
        fd = os.open(state["namespaces"][name], os.O_RDONLY)
        try:
            with netns.inside(fd):
                show = subprocess.run(["ip", "-o", "addr", "show", "eth0"], capture_output=True, text=True, check=True)
                link = subprocess.run(["ip", "-o", "link", "show", "eth0"], capture_output=True, text=True, check=True)
        except PermissionError:
            pytest.skip("needs root in this process")
        finally:
            os.close(fd)
        seen.append((show.stdout.split()[3], link.stdout.split("link/ether")[1].split()[0]))
        assert "10.77.0.2/24" in show.stdout
        assert "fd77::2/64" in show.stdout
    assert seen[0] == seen[1]


def test_as_an_ordinary_user():
    """The lab runs without any privilege, in a mount namespace where /dev/net/tun may be opened."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to stop being root")
    script = (
        "mount -t tmpfs tmpfs /mnt && mknod -m 666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun && "
        'exec setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"'
    )
    within = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    # Other users cannot read an interpreter or a checkout below the home of root, whatever the lab does.
    first = subprocess.run([*within, *LAB, "--help"], capture_output=True, text=True, check=False)
    if first.returncode != 0:
        reason = (first.stderr.strip().splitlines() or [f"exit status {first.returncode}"])[-1]
        pytest.skip(f"needs an interpreter and a checkout that user 65534 may read: {reason}")
    argv = [*within, *LAB, "-q", "--guest", SERVER]
    # This folder is not in tmp_path, because pytest lets no other user into its folders.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o1777)
        env = {**os.environ, "TMPDIR": folder, "HOME": folder}
        done = subprocess.run(
            [*argv, "--", "sh", "-c", f"{CLIENT} http --count 5"], capture_output=True, text=True, env=env, check=False
        )
    if "needs" in done.stderr and done.returncode == 2:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert '"wrong": 0' in done.stdout


def test_what_is_missing_is_said(tmp_path):
    env = {**os.environ, "PATH": str(tmp_path)}
    argv = [sys.executable, *LAB[1:], "--", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2
    assert "unshare" in done.stderr
    assert done.stderr.count("\n") == 1


def test_nothing_is_heard_on_the_machines_own_network(background):
    """The ports and addresses of the lab exist only inside its namespaces."""

    def listening(pid):
        text = "".join(Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
        lines = [line.split() for line in text.splitlines()]
        return {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == "0A"}

    before = listening("self")
    _, read = background("--guest", SERVER)
    mirror = next(p for p in read()["processes"] if p["id"] == "m0")
    assert 9003 in listening(mirror["pid"])
    assert 9003 not in listening("self") - before
    assert "169.254.77." not in Path("/proc/self/net/fib_trie").read_text()


def test_each_guest_has_its_own_run_and_tmp_and_knows_which_it_is(background, tmp_path):
    """Neither the other guest nor this machine sees what a guest writes below /run and /tmp."""
    mark = f"colo-mark-{os.getpid()}"
    said = f'echo "I am $COLO_SIDE, found $(cat /run/{mark} /tmp/{mark} 2>/dev/null | tr "\\n" " ")"'
    write = f"echo $COLO_SIDE >> /run/{mark}; echo $COLO_SIDE >> /tmp/{mark}"
    (tmp_path / "before").write_text("seen")
    _, read = background(
        *("--guest", f"{write}; {said}; cat {tmp_path}/before; {SERVER}", "--logs", str(tmp_path / "logs")),
    )
    for side in ("primary", "secondary"):
        log = Path(next(p["log"] for p in read()["processes"] if p["id"] == f"guest-{side[0]}"))
        wait_for(lambda log=log: "seen" in log.read_text(), 20, "the guest to speak")
        assert f"I am {side}, found {side} {side} \nseen" in log.read_text()
    assert not Path("/run", mark).exists()
    assert not Path("/tmp", mark).exists()


def test_a_report_on_standard_output():
    argv = [*LAB, "-q", "--report", "/dev/stdout", "--", "echo", "the client"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, _, rest = done.stdout.partition("\n")
    assert first == "the client"
    assert json.loads(rest)["exit"] == 0
    assert Path("/dev/stdout").is_symlink()


def test_a_demo_without_a_terminal_is_lines():
    """When the output is a pipe, every scene is one line, and panels do not overlap."""
    argv = [sys.executable, "-P", "-m", "colo_cli", "demo"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    scenes = [line for line in done.stdout.splitlines() if line.startswith(" ✔")]
    assert len(scenes) == 6, done.stdout
    for line in done.stdout.splitlines():
        # No line contains the end of one panel and the beginning of another.
        assert sum(line.count(corner) for corner in "╭╮") in (0, 2), line
        assert not ("╰" in line and "╭" in line), line
    assert done.stdout.rstrip().endswith("it all held")
