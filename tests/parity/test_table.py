"""The table of differences, the READMEs and the tests agree. Needs no QEMU."""

from pathlib import Path

import pytest

from parity.table import ROOT, load, readme, rendered, section
from scenario import read

SERVICES = ("compare", "rewriter")
TESTS = ROOT / "tests"


@pytest.mark.parametrize("service", SERVICES)
def test_the_readme_has_the_table(service):
    text = readme(service).read_text()
    start, end = section(text)
    assert text[start:end] == rendered(service), "python tests/parity/table.py writes it"


@pytest.mark.parametrize("service", SERVICES)
def test_every_difference_has_a_reason_and_something_that_shows_it(service):
    for one in load(service):
        assert one.why, one.qemu
        assert one.lines or one.proof, one.qemu


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_named_as_proof_exists(service):
    titles = {s.title for path in Path(TESTS).glob("scenarios/*/*.txt") for s in read(path)}
    text = "\n".join(path.read_text() for path in TESTS.glob("**/test_*.py"))
    for one in load(service):
        for name in one.proof:
            assert name in titles or f"def {name}(" in text, name


@pytest.mark.parametrize("service", SERVICES)
def test_no_scenario_is_explained_twice(service):
    titles = [title for one in load(service) for title in one.lines]
    assert len(titles) == len(set(titles))
