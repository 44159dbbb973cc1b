"""Which scenarios run against QEMU: all but those that need what its filters do not have."""

from pathlib import Path

from scenario import read

SCENARIOS = Path(__file__).parents[1] / "scenarios"

NOT = {
    "compare": {"mode"},
    # Time does not pass for QEMU's connections, and it is told of a failover only inside a migration.
    "rewriter": {"at", "wait", "promote", "drain", "mode"},
}
ALL_FORMS = "R2 data"
"""One script of the rewriter in every kind of frame."""


def scripts(service):
    """`(number, title with form, scenario, form)` of each; the number is for addresses of its own."""
    found = []
    for path in sorted((SCENARIOS / service).glob("*.txt")):
        for scenario in read(path, f"tests/scenarios/{service}/{path.name}"):
            words = {step.words[0] for step in scenario.steps}
            flushed = any(step.words[:2] == ("checkpoint", "flushed") for step in scenario.steps)
            if words & NOT[service] or (service == "rewriter" and (flushed or scenario.options)):
                continue
            forms = scenario.forms[:1] or ("v4",)
            if scenario.title == ALL_FORMS:
                forms = ("v4", "v6", "v4-vlan", "v4-qinq")
            for form in forms:
                title = scenario.title if form == "v4" else f"{scenario.title} [{form}]"
                found.append((len(found) + 1, title, scenario, form))
    return found
