"""Which scenarios run against QEMU: all but those that need what its filters do not have."""

from pathlib import Path

from scenario import read

SCENARIOS = Path(__file__).parents[1] / "scenarios"

NOT = {
    "compare": {"mode"},
    # QEMU's connections have no timers, QEMU learns of a failover only inside a migration, and nobody tells it which
    # connections are unprotected.
    "rewriter": {"at", "wait", "promote", "drain", "mode", "unprotected"},
}
TIMED = {
    "the secondary's FIN came, the data before it were lost: no difference, however late they come again",
    "a frame of the secondary that was lost on its way is no difference, however late it comes again",
    "a frame of the primary that was lost on its way is no difference either",
    "a connection that stands still for four times as long is one that asks, hole or not",
    "the equal part goes once nothing moves, the rest when it is equal, nothing twice",
    "the same with offloads",
    "two segments, both equal in part: the head begins where the client is",
    "and whoever of them came first",
    "once a head has left, the client is at its end, and the newest segment that reaches there goes on",
    "the newest that may not leave by its ACK does not keep an older one back",
    "what the primary sends again goes again",
    "what the secondary sends again goes again, and no more than that",
    "what it repeats of segments that are gone is nobody's",
    "a checkpoint lets the rest go",
    "the rest waits for its ACK, the head went with another copy",
    "the urgent pointer points to the same byte",
    "FIN goes with the last byte",
    "all bytes are equal, and the secondary has not ended its stream yet: the bytes go, and FIN when it has",
    "and again when the secondary repeats them, for it waits for the client",
    "a secondary that waits for the client, as the primary does, is not another one",
    "but it has to go on at last",
    "the head of a newer copy leaves: the rest of the older one has its timestamp",
    "a head is no older than what has left",
    "a copy of what has left goes before the rest of a longer segment",
}
"""What comes out follows from moments (50 ms until a part goes, seconds of standing still) that two real processes, fed
one after the other, do not keep: the core alone shows these.
"""
ALL_FORMS = "R2 data"
"""One script of the rewriter in every kind of frame."""


def scripts(service):
    """`(number, title with form, scenario, form)` of each; the number is for addresses of its own."""
    found = []
    for path in sorted((SCENARIOS / service).glob("*.txt")):
        for scenario in read(path, f"tests/scenarios/{service}/{path.name}"):
            words = {step.words[0] for step in scenario.steps}
            flushed = any(step.words[:2] == ("checkpoint", "flushed") for step in scenario.steps)
            if (
                scenario.title in TIMED
                or words & NOT[service]
                or (service == "rewriter" and (flushed or scenario.options))
            ):
                continue
            forms = scenario.forms[:1] or ("v4",)
            if scenario.title == ALL_FORMS:
                forms = ("v4", "v6", "v4-vlan", "v4-qinq")
            for form in forms:
                title = scenario.title if form == "v4" else f"{scenario.title} [{form}]"
                found.append((len(found) + 1, title, scenario, form))
    return found
