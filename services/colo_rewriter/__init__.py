"""The rewriter (QEMU's `filter-rewriter`), on the secondary: TCP numbers of one guest in terms of the other's.

* `rewriter`: the core, its ports and its fast path.
* `tracker`: handshakes, closes, resets: what each segment teaches. `stray`: which of them to believe.
* `flow`: what is known, and the table.
* `shift`: the bytes that change. `waiting`: client frames that came too early.
* `pace`: client segments that the guest could not believe yet, in shadow mode. `believable`: what changes in them.
* `neighbour`: ARP and IPv6 neighbour answers for a guest that the LAN cannot hear.
"""
