"""The COLO frame: one per host; checkpoints, modes, worker table, heartbeat of the pair.

* `frame`: the core; it hears every process of its host and the other host's frame.
* `checkpoints`: wishes become checkpoints, counted by epochs. `drivers`: what a checkpoint does.
* `registry`: the processes of this host. `peer`: the other host. `table`: which worker has which slots.
"""
