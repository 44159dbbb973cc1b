"""Rings: each folder of tests needs something from the machine. If it is missing, the reason is always shown.

The conftest of a ring skips its tests with a reason; this one adds the table at the end of the run.
"""

import gc
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "any machine",
    # The speed of a machine that others use as well says nothing about the code.
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
)
hypothesis.settings.load_profile("any machine")

RINGS = {
    "unit": "Python alone",
    "scenarios": "Python alone",
    "simulation": "Python alone",
    "compiled": "a C compiler and Python's headers",
    "parity": "qemu-system-x86_64",
    "captures": "Debian's package sources (or COLO_CAPTURES); root, iproute2, tcpdump and curl to make some",
    "lab": "root or user namespaces, /dev/net/tun, iproute2",
    "faults": "root, /dev/net/tun, iproute2, nft",
    "containers": "a Docker engine with compose",
    "chaos": "a Docker engine with compose",
    "bench": "nothing is asserted: run `make bench`",
}
_ROOT = Path(__file__).parent


@cache
def ring_of(path: Path) -> str:
    """The ring that a test file belongs to: its folder."""
    return path.relative_to(_ROOT).parts[0] if path.is_relative_to(_ROOT) else "other"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.ring(ring_of(item.path)))


def pytest_collection_finish() -> None:
    """Modules and collected tests stay until the end, so the garbage collector need not look at them each time."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            ring = report.nodeid.split("/")[1] if report.nodeid.startswith("tests/") else "other"
            rows[ring][outcome] += 1
            if outcome == "skipped":
                longrepr = report.longrepr
                reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
                reasons[ring][reason.removeprefix("Skipped: ")] += 1
    terminalreporter.section("rings")
    for ring, needs in RINGS.items():
        row = rows[ring]
        if not row and ring != "bench":
            continue  # not part of this run
        line = (
            f"{ring:<11} {row['passed']:>5} passed {row['failed'] + row['error']:>3} failed {row['skipped']:>3} skipped"
        )
        terminalreporter.write_line(f"{line}   needs: {needs}")
        for reason, count in reasons[ring].most_common():
            terminalreporter.write_line(f"            {count} skipped: {reason}")
