"""What the frame wants to be sent and logged, in order, while it deals with one message or one timer."""

from typing import Any

from colo_proto.core import Log, Output, Tell
from colo_proto.messages import Message


class Outbox(list[Output]):
    """Filled by the parts of the frame; `Frame` empties it at the end."""

    def tell(self, message: Message, *to: str) -> None:
        """Send a message to each of these: a routing id, `PEER`, or `EVERYBODY`."""
        self.extend(Tell(message, one) for one in to)

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Write a line to the log."""
        self.append(Log(level, event, fields))

    def take(self) -> list[Output]:
        """Empty it, and return what was in it."""
        outputs = list(self)
        self.clear()
        return outputs
