"""Every scenario file, over every kind of frame that it is about."""

from pathlib import Path

import pytest

from colo_compare.config import CompareConfig
from colo_rewriter.config import RewriterConfig
from packets import FORMS
from rewriting import Play
from scenario import COMPARE_FORMS, ComparePlayer, read

HERE = Path(__file__).parent


def every(folder, forms):
    paths = sorted((HERE / folder).glob("*.txt"))
    scenarios = [one for path in paths for one in read(path, f"tests/scenarios/{folder}/{path.name}")]
    return [pytest.param(one, form, id=f"{one.name} [{form}]") for one in scenarios for form in one.forms or forms]


@pytest.mark.parametrize(("scenario", "form"), every("compare", COMPARE_FORMS))
def test_compare(scenario, form):
    ComparePlayer(form, config=scenario.config(CompareConfig)).play(scenario)


@pytest.mark.parametrize(("scenario", "form"), every("rewriter", FORMS))
def test_rewriter(scenario, form):
    Play(form, scenario.config(RewriterConfig)).play(scenario)
