"""How long the leadership waits for what, as parts and multiples of the timeout and of the heartbeat interval."""

from typing import Final

LEAVING_INTERVALS: Final = 2
"""A primary that has lost the secondary announces for this many heartbeat intervals that it will go on alone."""
LEASE_PART: Final = 2 / 3
"""A lease lasts for this part of the timeout after which silence counts as death. The rest allows for the differences
of two clocks, for queues, and for a slow machine.
"""
BELIEVED_PART: Final = 0.9
"""A claim that may be older than this part of the timeout is not believed."""
LEASE_MARGIN: Final = 1.25
"""A secondary waits for at least this many times the length of the primary's leases before it takes over."""
WAITING_RATE: Final = 4
"""While a side waits for an answer of the other side, it speaks this many times as often as usual."""
PROOF_RATE: Final = 16
"""A side speaks at most this many times as often as usual to answer a speaker that has proved nothing yet."""
LAN_MISSED: Final = 3
"""Our LAN heartbeat has failed when no claim of ours was sent for this many intervals."""
