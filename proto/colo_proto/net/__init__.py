"""Packet views: where things are inside a frame.

* `dissect` finds the layers of one frame once and returns a `Packet` of offsets into it (no copies);
* `tcp`, `icmp` read what is inside a layer at an offset;
* `flow` names flows: a key per direction, its reverse, text for people, and the hash that shards;
* `fragment` puts IP fragments together again;
* `craft` builds frames (neighbour answers, resets, tests).

Nothing here raises on bad bytes: what cannot be understood is a `Packet` with a `kind` that says so.
"""
