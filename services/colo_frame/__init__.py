"""The COLO frame: one per host; checkpoints, modes, worker table, heartbeat of the pair.

=============  ==============================================================================
module         holds
=============  ==============================================================================
`frame`        `Frame`, the core: it hears every process of its host and the other host's frame
`host`         what is heard from the processes of this host
`pair`         what is heard from the other host's frame
`queries`      questions and orders of people
`progress`     what follows from what was heard, and from time that passes
`scaling`      the worker table follows the compare workers
`modes`        the mode and the rules of all compares
`wishes`       how a wish for a checkpoint reaches the primary
`standing`     `Standing`: the parts below side by side, and how they are shown and told
`checkpoints`  wishes become checkpoints, counted by epochs
`causes`       who asks for checkpoints again and again, and how long each has to wait
`drivers`      what a checkpoint does
`workers`      which compare workers there are, and when a change becomes a new table
`table`        which worker has which slots
`hasty`        whether the rewriters must hold clients back
`ownership`    permissions, promotion and claims: it carries out what `tenure` decides
`tenure`       who may write to the client LAN
`freshness`    is what was heard of the other side news
`peer`         the other host's frame
`registry`     the processes of this host
`bounds`       how much of what others say is taken in and kept
`config`       the options
=============  ==============================================================================

A module uses some of those below it in this table, and none above. All of them are pure: no I/O, no clock.
"""
