"""The same packets into QEMU's filter-rewriter and into our process; every difference is in the table."""

import pytest

from parity.recorder import CoreRewriter, RewriterRecorder
from parity.rigs import OurRewriter, QemuRewriter
from parity.scripts import scripts
from parity.table import lines

TABLE = lines("rewriter")
SCRIPTS = scripts("rewriter")


@pytest.mark.parametrize(("number", "title", "scenario", "form"), SCRIPTS, ids=[title for _, title, *_ in SCRIPTS])
def test_parity(rigs, number, title, scenario, form):
    core = RewriterRecorder(form, rig=CoreRewriter(), number=number).play(scenario).line
    got = [
        RewriterRecorder(form, rig=rigs(make, make), number=number).play(scenario).line
        for make in (OurRewriter, QemuRewriter)
    ]
    expected = TABLE.get(title, (core, core))
    assert tuple(got) == expected, (
        "ours, QEMU's: a difference belongs into tests/parity/differences.toml, with its reason"
    )
    assert got[0] == core


def test_every_line_of_the_table_is_a_script_that_comes_out_differently():
    assert set(TABLE) <= {title for _, title, *_ in SCRIPTS}
    assert all(ours != qemu for ours, qemu in TABLE.values())
