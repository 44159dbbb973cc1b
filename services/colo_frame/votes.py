"""The frame's dealings with `colo vote`: it says what this side wants, and tells people how the third vote stands.

`thirdvote` holds what is known, and `leadership` decides what follows. People are told how it stands in one word:

=============  ===============================================================================
word           meaning
=============  ===============================================================================
`held`         this side has the key
`agreed`       it writes without the key, because the other side agrees
`denied`       another one has the key
`free`         nobody has it
`unreachable`  the store does not answer, or `colo vote` is silent
=============  ===============================================================================
"""

from typing import Any, Final

from colo_frame.config import FrameConfig
from colo_frame.leadership import Leadership
from colo_frame.outbox import Outbox
from colo_frame.registry import Registry
from colo_frame.thirdvote import ThirdVote
from colo_frame.transitions import IDLE, WRITING
from colo_proto.claim import State
from colo_proto.messages import Voted

ROLE: Final = "vote"


class Votes:
    """See the module. Only where there is a third vote."""

    def __init__(self, config: FrameConfig, leadership: Leadership, registry: Registry, out: Outbox) -> None:
        assert leadership.vote is not None
        self.vote: ThirdVote = leadership.vote
        self._leadership = leadership
        self._automatic = config.automatic
        self._registry = registry
        self._out = out
        self.protected = False
        """This side leads, and everything that it releases has been compared: the other guest is a replica."""
        self._word = ""
        self._store: bool | None = None

    def hear(self, voted: Voted, now: float) -> None:
        """`colo vote` says what came of a request to the store."""
        if not self.vote.hear(voted, now):
            self._out.counters["ignored_messages"] += 1
            return
        if self.vote.held(now):
            self._leadership.take_token(2 * self.vote.token)
        silent = now > self._leadership.heard + 2 * self._leadership.interval
        if silent and self.vote.alone and not self.vote.noted:
            # It has released what this guest has not seen. What it says itself counts more, while it is heard.
            self._leadership.promotable = False

    def _note(self, now: float) -> str:
        """What the store shall note about this side being alone (`VoteWanted.alone`): only a side that leads is."""
        leadership = self._leadership
        if leadership.state in (State.LEAVING, State.ALONE):
            return "yes"
        if leadership.state == State.ASKING and leadership.asked_in_vain(now):
            return "yes"
        return "no" if leadership.state == State.HOLDING and self.protected else ""

    def _wanted(self, now: float, *, writing: bool) -> bool:
        """`writing`: leases may still be valid, so the key is kept."""
        leadership = self._leadership
        wants = leadership.state not in (*IDLE, State.YIELDING)
        return wants or (self.vote.wanted and writing) or (self._automatic and leadership.ready(now))

    def advance(self, now: float, *, writing: bool) -> None:
        """Say what this side wants, when that has changed or is due again, and log how the vote stands."""
        leadership, vote = self._leadership, self.vote
        vote.want(self._wanted(now, writing=writing))
        vote.note(self._note(now))
        voters = self._registry.live(ROLE)
        if voters and vote.due(now, leadership.interval):
            self._out.tell(vote.say(now), *voters)
        word, store = self.word(now), vote.answers(now)
        if (word, store) != (self._word, self._store) and vote.heard >= 0:
            self._word, self._store = word, store
            self._out.counters["votes." + word] += 1
            self._out.log(
                "info" if store else "warning", "vote.changed",
                vote=word, store=store, holder=vote.holder, token=vote.token, error=vote.error,
            )  # fmt: skip

    def word(self, now: float) -> str:
        """How the third vote stands, in one of the words above."""
        vote = self.vote
        if vote.held(now):
            return "held"
        if self._leadership.state in WRITING:
            return "agreed"
        if vote.denied(now):
            return "denied"
        return "free" if vote.answers(now) else "unreachable"

    def deadline(self) -> float:
        """When to call `advance`."""
        return self.vote.due_at(self._leadership.interval) if self._registry.live(ROLE) else float("inf")

    def gauges(self) -> dict[str, int]:
        """Levels for metrics."""
        now = self._leadership.ran
        return {
            "vote_held": int(self.vote.held(now)),
            "vote_store": int(self.vote.answers(now)),
            "vote_agreed": int(self.word(now) == "agreed"),
        }

    def status(self, now: float) -> dict[str, Any]:
        """What `colo status` shows of it."""
        return {"state": self.word(now), **self.vote.status(now)}
