"""`colo-compare`: holds the primary's output until the secondary could carry on after it.

* `compare.Compare` - the core: dispatches frames to flows, timers, modes, checkpoints.
* `tcp.TcpFlow` - one connection as a byte stream under the rule of output commit. `tcp` names the classes that it is
  made of, one a file.
* `stream.Reference` - the secondary's bytes that the primary's are held against.
* `datagram.DatagramFlow` - UDP, ICMP and everything else without a stream.
* `ledger.Ledger` - the books: what came, what is held, what went and why.
* `config.CompareConfig` - options, with QEMU's names and defaults.
"""
