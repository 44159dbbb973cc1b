"""The rewriter (QEMU's `filter-rewriter`), on the secondary: TCP numbers of one guest in terms of the other's.

* `rewriter`: the core and its ports. `passage`: the fast path of each frame.
* `tracker`: all connections. `handshake`: learns their numbers. `established`: passes segments when they are known.
* `flow`: what is known of a connection, and the table. `acceptance`: which segments the guest would accept.
* `shift`: the bytes that change. `waiting`: client frames that came too early.
* `pace`: client segments that the guest could not accept yet, in shadow mode. `segments`: what changes in them.
* `neighbour`: ARP and IPv6 neighbour answers for a guest that the LAN cannot hear.
* `backoff`: ends the retransmission pauses of both ends after a failover.
"""
