"""`colo-compare`: holds the primary's output until the secondary could carry on after it.

* `compare.Compare` - the core: modes, checkpoints, timers; it owns the others.
* `table.Table` - the flows, and which flow a frame belongs to.
* `tcp` - one connection as a byte stream under the rule of output commit (`tcp.flow.TcpFlow`).
* `datagram.DatagramFlow` - UDP, ICMP and everything else without a stream; `errors.ErrorFlow` for ICMP errors.
* `ledger.Ledger` - the accounts: what came, what is held, what left and why; `requests.Requests` - checkpoints.
* `handover` - flows that are handed over to other workers.
* `config.CompareConfig` - options, with QEMU's names and defaults.
"""
