"""Bytes and values, no I/O: what the processes of the COLO proxy say to each other and see in frames.

* `frame`: what a frame is; `net/`: packet views; `seq`, `checksum`: arithmetic.
* `core`: the shape of a filter core (sans-IO) and what it may ask the runtime to do.
* `messages`, `codec`: control messages and frame batches, and their bytes on a ZeroMQ link.
* `replay`: the two ends of a link that may not lose a frame silently.
* `endpoint`: the grammar of endpoints; `chardev`: QEMU's framing of a byte stream.
* `topology`: the one table of processes and links, from which everything else is wired.
* `errors`: errors sorted by whose fault they are.
"""
