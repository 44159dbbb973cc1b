"""The same packets into QEMU's colo-compare and into our process; every difference is in the table."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from parity.recorder import CompareRecorder, CoreCompare, rig_options
from parity.rigs import CompareRig, our_compare, qemu_compare
from parity.scripts import scripts
from parity.table import lines

TABLE = lines("compare")
SCRIPTS = scripts("compare")


def rig(rigs, make, scenario, form):
    options, vnet = rig_options(scenario), form.endswith("gso")
    key = (make.__name__, tuple(sorted(options.items())), vnet)
    return rigs(key, lambda: CompareRig(make(options, vnet), vnet))


@pytest.mark.parametrize(("number", "title", "scenario", "form"), SCRIPTS, ids=[title for _, title, *_ in SCRIPTS])
def test_parity(rigs, number, title, scenario, form):
    core = CompareRecorder(form, rig=CoreCompare(scenario), number=number).play(scenario).line
    expected = TABLE.get(title, (core, core))
    running = [rig(rigs, make, scenario, form) for make in (our_compare, qemu_compare)]

    def record(one, line):
        recorded = CompareRecorder(form, rig=one, number=number, expected=line).play(scenario).line
        # Nothing of this script may be left for the next one.
        one.checkpoint()
        return recorded

    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(record, running, expected))
    assert tuple(got) == expected, (
        "ours, QEMU's: a difference belongs into tests/parity/differences.toml, with its reason"
    )
    if title not in TABLE:
        assert got[0] == core


def test_every_line_of_the_table_is_a_script_that_comes_out_differently():
    titles = {title for _, title, *_ in SCRIPTS}
    assert set(TABLE) <= titles
    assert all(ours != qemu for ours, qemu in TABLE.values())
