"""What the frame sends, logs and counts while it deals with one message or one timer."""

from collections import Counter
from typing import Any

from colo_proto.core import Log, Output, Tell
from colo_proto.messages import Message


class Outbox(list[Output]):
    """Messages and log lines, in order. The parts of the frame fill it, and `Frame` empties it at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.counters: Counter[str] = Counter()

    def tell(self, message: Message, *to: str) -> None:
        """Send a message to each of these: a routing id, `PEER`, or `EVERYBODY`."""
        self.extend(Tell(message, one) for one in to)

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Write a line to the log."""
        self.append(Log(level, event, fields))

    def take(self) -> list[Output]:
        """Empty it, and return what was in it. The counters stay."""
        outputs = list(self)
        self.clear()
        return outputs
