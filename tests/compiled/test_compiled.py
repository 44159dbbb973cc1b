"""The compiled cores behave as the interpreted ones: scenarios, seeds of the simulation, and fuzzing, on the wheel."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 900
UNITS = (
    "bounds",
    "checkpoints",
    "datagram",
    "errors",
    "evidence",
    "flow_state",
    "modes",
    "properties",
    "rules",
    "shapes",
    "stream_model",
    "tcp",
    "tcp_end",
    "tcp_middle",
    "tcp_overflow",
    "tcp_regressions",
    "tcp_stall",
    "tcp_syn",
    "tcp_timeout",
    "tcp_window",
    "telling",
)


def missing() -> str:
    """Why nothing can be compiled here; empty when it can."""
    if not (shutil.which("gcc") or shutil.which("cc")):
        return "no C compiler is installed"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers are not installed"
    return ""


def run(*argv: str | Path, **env: str) -> str:
    done = subprocess.run(
        argv, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def built(folder: Path, **env: str) -> Path:
    """The wheel, made in `folder`."""
    made = {"COLO_COMPILE": "", **env}
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ".", **made)
    (wheel,) = folder.glob("colo_proxy-*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the compiled wheel in front of whatever this one has."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("compiled")
    wheel = built(folder)
    assert "none-any" not in wheel.name, "what is installed without a word is compiled where it can be"
    venv.create(folder / "env", with_pip=False)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel)
    # Libraries are those of this environment; its `.pth` for the editable sources is not read from there.
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder / "env" / "bin" / "python"


@pytest.mark.parametrize("env", [{"COLO_COMPILE": "0"}, {"CC": "no-such-compiler"}])
@pytest.mark.timeout(TIMEOUT)
def test_it_is_not_compiled_where_that_is_not_wanted_or_cannot_be(env: dict[str, str], tmp_path: Path) -> None:
    assert "none-any" in built(tmp_path, **env).name


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"COLO_COMPILE": "1", "CC": "no-such-compiler"}, "cannot be compiled without a C compiler"),
        ({"COLO_COMPILE": "yes"}, "COLO_COMPILE is 'yes': it can be 0, 1 or auto"),
    ],
)
@pytest.mark.timeout(TIMEOUT)
def test_what_is_asked_for_and_cannot_be_is_said(env: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=said):
        built(tmp_path, **env)


@pytest.mark.timeout(TIMEOUT)
def test_it_is_compiled(python: Path) -> None:
    assert "(compiled cores)" in run(python, "-P", "-m", "colo_cli", "--version")
    names = "colo_compare.tcp.flow", "colo_compare.table", "colo_rewriter.shift", "colo_proto.net.packet"
    program = f"from importlib import import_module as m; print(*(m(n).__file__ for n in {names!r}))"
    assert all(name.endswith(".so") for name in run(python, "-P", "-c", program).split())


@pytest.mark.timeout(TIMEOUT)
def test_scenarios(python: Path) -> None:
    assert " passed" in run(python, "-P", "-m", "pytest", "-q", "tests/scenarios")


@pytest.mark.timeout(TIMEOUT)
def test_units(python: Path) -> None:
    """Those that neither make subclasses of cores nor look inside, which compiled classes allow nobody."""
    compare = (f"tests/unit/colo_compare/test_{name}.py" for name in UNITS)
    inside = "test_flow_state.py::test_every_field_of_a_stream_goes_along_or_has_a_way_of_its_own"
    argv = (*compare, "tests/unit/colo_rewriter/test_rewriter.py", f"--deselect=tests/unit/colo_compare/{inside}")
    assert " passed" in run(python, "-P", "-m", "pytest", "-q", *argv)


@pytest.mark.timeout(TIMEOUT)
def test_simulation(python: Path) -> None:
    run(python, "-m", "tests.simulation", "--seeds", "200", "--jobs", "2")


@pytest.mark.timeout(TIMEOUT)
def test_fuzz(python: Path) -> None:
    run(python, "-m", "tests.fuzz", "--inputs", "200000")
