"""The transition tables of the leadership, the README that shows them, and whole interactions as text files."""

from pathlib import Path

import pytest

import interactions
from colo_frame import transitions
from colo_frame.transitions import MEANING, TABLES, WRITING, On, said
from colo_proto.claim import State

README = Path(transitions.__file__).with_name("README.md")
FILES = sorted(Path(__file__).with_name("testdata").glob("*.txt"))
STATES = {
    "primary": {State.ASKING, State.HOLDING, State.LEAVING, State.ALONE, State.YIELDING, State.FENCED},
    "secondary": {State.STANDBY, State.TAKING, State.PROMOTED, State.FENCED},
}
STATES["either"] = STATES["primary"] | STATES["secondary"] - {State.PROMOTED}
LETTERS = {"primary": "p", "secondary": "s", "either": "ps"}
CHANGES = [path for path in FILES if path.stem.startswith("circle-")]
"""Interactions of pairs whose roles change."""

RARE = {("leaving", "yielding", "superseded")}
"""The other side must have taken two tokens while the leader took one: only scripts of `ownership_search` find that."""


def events():
    return {value for name, value in vars(On).items() if not name.startswith("_")}


@pytest.mark.parametrize("side", TABLES)
def test_every_state_can_be_reached_and_left(side):
    rows = TABLES[side].values()
    assert {row.state for row in rows} == STATES[side]
    first = {state for name, state in transitions.FIRST.items() if side in (name, "either")}
    assert {row.next for row in rows} | first == STATES[side]


@pytest.mark.parametrize("side", TABLES)
def test_leases_are_given_and_ended_exactly_where_writing_begins_and_ends(side):
    for row in TABLES[side].values():
        words = said(side, row.state, row.next)
        assert ("lease" in words) == (row.next in WRITING), row
        assert ("stop" in words) == (row.state in WRITING and row.next not in WRITING) or row.next == "yielding", row
        assert "promote" not in words or side != "primary"
        if side == "either":
            assert ("promote" in words) == (row.next in WRITING and row.state not in WRITING), row
            assert ("demote" in words) == (row.next == State.STANDBY), row


def test_every_event_has_a_meaning_and_a_row():
    used = {row.on for table in TABLES.values() for row in table.values()}
    assert used == events() == set(MEANING)


def test_the_readme_names_the_states_that_write():
    first = README.read_text().partition("A side writes in the states ")[2].partition(", and in no other")[0]
    assert {word.strip("`, ") for word in first.replace(" and ", " ").split()} == WRITING


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_interaction(path):
    text = path.read_text()
    assert interactions.play(text) == text


@pytest.mark.parametrize("side", TABLES)
def test_the_interactions_walk_every_row_of_a_table(side):
    files = CHANGES if side == "either" else [path for path in FILES if path not in CHANGES]
    found = {step for path in files for step in interactions.steps(path.read_text())}
    walked = {tuple(step) for letter, *step in found if letter in LETTERS[side]}
    rows = {(row.state, row.next, row.on) for row in TABLES[side].values()}
    assert rows - walked == (set() if side == "secondary" else RARE)
    assert walked <= rows
