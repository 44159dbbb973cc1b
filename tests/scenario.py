"""Scenario files: what goes into a core and what must come out, one line of text for each packet.

::

    option compare_timeout 1000          # for every scenario in the file: lines before the first heading
    == T2 a byte that differs            # a heading begins with the rows of the behaviour list that it covers
    forms v4 v6                          # kinds of frame to run it in; without it, the core's usual ones
    pri a: PA 1000 500 "ABCDEFGHIJ"      # the primary guest sends; `a` is the packet's name from here on
    sec a "ABCDEFGHIX"                   # the secondary sends packet a, but with another payload
    want payload offset 9                # a checkpoint is requested, now
    checkpoint copied                    # it is done (or `flushed`: no state was copied)
    out a                                # packet a comes out, now

Packets are written in the grammar of `packets`. Everything that comes out after a line is written below it, in order.
A difference is a `MismatchError` that shows the file, the line, what was expected and what came.

Compare: `pri`, `sec`, `out PACKET`, `want REASON [offset N]`, `wait 3.5s`, `checkpoint copied|flushed`, `mode MODE`.
Rewriter: `client PACKET [-> CHANGES|held]`, `guest PACKET [-> CHANGES]`, `out client|guest PACKET`, `wait`, `at 2s`
(since the start), `checkpoint`, `mode`, `promote`, `drain`; without an arrow the packet comes out as it is.
Both: `count NAME N` (of a counter or gauge).
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path

from colo_compare.config import CompareConfig
from colo_proto.messages import CheckpointWanted, SetMode
from packets import change, parse, show, tokens
from playbook import Play

ROWS = re.compile(r"(?:[TUFR]|RB)\d+$")
_NAME = re.compile(r"[a-z]\w*:$")
COMPARE_FORMS = ("v4", "v6", "v4-vlan")


class MismatchError(AssertionError):
    """Something else came out than a scenario expects."""


@dataclass(frozen=True)
class Step:
    line: int
    text: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    path: str
    line: int
    title: str
    rows: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    forms: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def name(self):
        return f"{Path(self.path).stem}: {self.title}"

    def config(self, kind):
        """The options as a configuration of `kind`; their types are the fields'."""
        types = {name: type(getattr(kind(), name)) for name, _ in self.options}
        return kind(**{name: types[name](value) for name, value in self.options})


def read(path, shown=None):
    """The scenarios of a file."""
    return read_text(path.read_text(), shown or str(path))


def read_text(text, shown="script"):
    """The scenarios in a text. Without a heading, all of it is one scenario without a title."""
    common = current = Scenario(shown, 1, "")
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("=="):
            words = line[2:].split()
            rows = tuple(word for word in words if ROWS.match(word))
            current = replace(common, line=number, title=" ".join(words), rows=rows)
            found.append(current)
            continue
        words = tokens(line)
        if not words:
            continue
        if words[0] == "option":
            current = replace(current, options=(*current.options, (words[1], words[2])))
        elif words[0] == "forms":
            current = replace(current, forms=tuple(words[1:]))
        else:
            step = Step(number, line.split("#")[0].strip() if '"' not in line else line.strip(), tuple(words))
            current = replace(current, steps=(*current.steps, step))
        if found:
            found[-1] = current
        else:
            common = current
    return found or [common]


def seconds(word):
    """`3.5s` or `200ms` in seconds."""
    return float(word[:-2]) / 1000 if word.endswith("ms") else float(word.removesuffix("s"))


@dataclass
class Player(ABC):
    """Carries out steps. A verb is a method `on_VERB(words)` of the subclass."""

    form: str = "v4"
    names: dict = field(default_factory=dict, kw_only=True)
    scenario: Scenario | None = field(default=None, kw_only=True)
    step: Step | None = field(default=None, kw_only=True)

    expecting = frozenset({"out", "want", "count"})
    """Verbs that check what the step before them did."""

    def play(self, scenario):
        self.scenario = scenario
        for step in scenario.steps:
            if step.words[0] not in self.expecting:
                self.settle()
            self.step = step
            verb = getattr(self, f"on_{step.words[0]}", None)
            if verb is None:
                self.fail("a step that is known", step.words[0])
            try:
                verb(list(step.words[1:]))
            except (ValueError, IndexError) as error:
                self.fail("a line of the grammar", str(error))
        self.settle()
        return self

    def run(self, script):
        """Run a script without headings."""
        (scenario,) = read_text(script)
        return self.play(scenario)

    def settle(self):
        """Check that nothing has come out that no line expects."""
        for what, pending in self.pending():
            if pending:
                self.fail("nothing", "\n            ".join(f"{what} {one}" for one in pending))

    @abstractmethod
    def pending(self):
        """What has come out and no line has expected yet: `(verb, texts)`."""

    def fail(self, expected, got):
        where, text = (self.step.line, self.step.text) if self.step else (0, "")
        path, title = (self.scenario.path, self.scenario.title) if self.scenario else ("script", "")
        raise MismatchError(
            f"{path}:{where}: {title} [{self.form}]\n    {text}\n  expected: {expected}\n       got: {got}"
        ) from None

    def packet(self, words, side="g"):
        """The packet that `words` name, describe or change."""
        words = list(words)
        name = words.pop(0)[:-1] if words and _NAME.match(words[0]) else None
        known = self.names.get(words[0]) if words else None
        one = change(known, words[1:]) if known is not None else parse(words, side)
        if name:
            self.names[name] = one
        return one

    def expect(self, queue, packet):
        """Check that the next frames in `queue` are `packet`, which may be several frames."""
        for want in packet.frames(self.form):
            if not queue:
                self.fail(show(want), "nothing")
            self.same(want, bytes(queue.pop(0)))

    def same(self, want, got):
        if got != want:
            texts = show(want), show(got)
            if texts[0] == texts[1] or len(got) == len(want):
                at = next(
                    (i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got))
                )
                texts = tuple(
                    f"{text}  (byte {at} of {len(one)}: {one[at : at + 8].hex(' ')})"
                    for text, one in zip(texts, (want, got), strict=True)
                )
            self.fail(*texts)

    def count(self, core, words):
        name, want = words[0], int(words[1])
        got = core.gauges().get(name, core.counters[name])
        if got != want:
            self.fail(f"{name} {want}", f"{name} {got}")


@dataclass
class ComparePlayer(Player):
    """A compare core under a scenario, on a stepped clock."""

    config: CompareConfig = field(default_factory=CompareConfig)

    def __post_init__(self):
        self.by_hand = Play(self.config)
        self.seen_out = self.seen_wants = 0

    def pending(self):
        wants = self.by_hand.wanted[self.seen_wants :]
        return ("out", map_show(self.by_hand.sent[self.seen_out :])), ("want", [text_of(one) for one in wants])

    def on_pri(self, words):
        self._send("primary_in", words)

    def on_sec(self, words):
        self._send("secondary_in", words)

    def _send(self, port, words):
        for frame in self.packet(words).frames(self.form):
            self.by_hand.give(port, frame)

    def on_out(self, words):
        packet = self.packet(words)
        queue = self.by_hand.sent[self.seen_out :]
        before = len(queue)
        self.expect(queue, packet)
        self.seen_out += before - len(queue)

    def on_want(self, words):
        wants = self.by_hand.wanted[self.seen_wants :]
        if not wants:
            self.fail("want " + " ".join(words), "nothing")
        self.seen_wants += 1
        offset = int(words[2]) if len(words) > 1 else wants[0].offset
        if (wants[0].reason, wants[0].offset) != (words[0], offset):
            self.fail("want " + " ".join(words), "want " + text_of(wants[0]))

    def on_wait(self, words):
        self.by_hand.at(seconds(words[0]))

    def on_checkpoint(self, words):
        self.by_hand.done(copied={"copied": True, "flushed": False}[words[0]])

    def on_mode(self, words):
        self.by_hand.tell(SetMode(words[0]))

    def on_count(self, words):
        self.count(self.by_hand.core, words)


def text_of(want: CheckpointWanted):
    return f"{want.reason} offset {want.offset}"


def map_show(frames):
    return [show(bytes(frame)) for frame in frames]
