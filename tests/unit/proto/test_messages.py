"""Control messages: what must stay true of all of them for the wire to stay append-only."""

from dataclasses import FrozenInstanceError, is_dataclass
from typing import get_args

import pytest

from colo_proto.messages import NAMES, TYPES, Message, Mode, Reason, SetMode, to_dict

ALL = list(TYPES.values())


def test_the_table_and_the_union_are_the_same():
    assert set(get_args(Message)) == set(ALL)
    assert {name: cls for cls, name in NAMES.items()} == TYPES


@pytest.mark.parametrize("cls", ALL, ids=NAMES.get)
def test_a_message_is_a_frozen_value(cls):
    assert is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert not hasattr(cls, "__dict__") or "__slots__" in vars(cls)


def test_to_dict_has_every_field_and_not_the_type():
    assert to_dict(SetMode("shadow")) == {"mode": "shadow", "resync": False}


def test_messages_do_not_change():
    with pytest.raises(FrozenInstanceError):
        SetMode("shadow").mode = "bypass"


def test_values_are_distinct_words():
    reasons = [v for k, v in vars(Reason).items() if k.isupper()]
    assert len(set(reasons)) == len(reasons)
    assert all(r.isascii() and r.replace("_", "").isalpha() and r.islower() for r in reasons)
    assert Mode.ALL == ("enforce", "shadow", "bypass")
