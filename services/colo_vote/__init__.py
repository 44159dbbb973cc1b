"""The third vote: a process that holds a key in a store for the side of the pair that writes to the client LAN.

=============  ==============================================================================
module         holds
=============  ==============================================================================
`config`       the options
`store`        what is needed of a store, in one small interface
`stores`       one file for each kind of store, named after its scheme: `etcd`
`vote`         `Vote`, the core: which request is due, and what the COLO frame is told
`shell`        `VoteShell`: the loop, and a thread that waits for the store
=============  ==============================================================================
"""
