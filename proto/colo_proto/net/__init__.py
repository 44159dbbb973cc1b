"""Packet views: where things are inside a frame.

* `dissect` finds the layers of one frame once and returns a `Packet` of offsets into it (no copies);
* `tcp`, `icmp` read what is inside a layer at an offset;
* `flow` names flows: a key per direction, its reverse, text for people, and the hash that shards;
* `fragment` puts IP fragments together again;
* `craft` builds the few frames that the proxy sends itself (announcements, neighbour answers, resets, ICMP errors).

Nothing here raises an exception for bad bytes: a packet that cannot be read is a `Packet` of `Kind.MALFORMED`.
"""
