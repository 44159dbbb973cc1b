"""The COLO frame: one process per host, for checkpoints, modes, the worker table, and the heartbeat of the pair.

=============  ==============================================================================
module         holds
=============  ==============================================================================
`frame`        `Frame`, the core: it hears every process of its host and the other host's frame, and
               does what follows
`host`         what is heard from the processes of this host
`pair`         what is heard from the other host's frame
`queries`      questions and orders of people
`scaling`      the worker table follows the compare workers
`side`         `Side`: the parts below side by side, and how they are shown and told
`judging`      collects what this frame knows, and has it judged
`requests`     how a request for a checkpoint reaches the primary
`checkpoints`  requests become checkpoints, counted by epochs
`causes`       who causes checkpoints again and again, and how long each has to wait
`drivers`      what a checkpoint does
`workers`      which compare workers there are, and when a change becomes a new table
`table`        which worker has which slots
`modes`        the mode and the rules of the compares and rewriters
`guests`       whether a guest answers
`chain`        what is broken in this host's chain of filters
`ownership`    leases, promotion and claims: it carries out what `leadership` decides
`votes`        what is said to `colo vote`, and of the third vote
`changing`     what claims mean where roles change: which host leads is a state
`fixed`        what claims mean where the primary leads and a failover happens once
`leadership`   which side may write to the client LAN: what has happened
`transitions`  and what follows, as tables
`thirdvote`    the key in a store, and the other side's agreement
`timing`       how long the leadership waits for what
`freshness`    whether a claim of the other side is new
`peer`         the other host's frame
`registry`     the processes of this host
`verdict`      would the pair survive the loss of its primary now?
`outbox`       what is to be sent and logged
`bounds`       how much of what others say is kept
`config`       the options
=============  ==============================================================================

A module uses some of those below it in this table, and none above. All of them are pure: no I/O, no clock. `shell` does
the input and output around `Frame`.
"""
