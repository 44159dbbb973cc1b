"""One TCP connection under the rule of output commit.

A connection is one object: `flow.TcpFlow`. Its state is declared in `state`; what happens to it is written as functions
over that state, one subject to a file. Each file uses only those above it in this list::

    history     bytes of the secondary that were found equal
    reference   the secondary's bytes, by position
    state       everything that is known of one connection
    intake      the secondary's bytes are kept
    explain     how a difference is reported
    departure   held segments leave by position, once, and never with an older timestamp
    window      segments leave, with a window that the secondary offers too (flow control)
    partial     parts of held segments leave, where two whole ones would wait for each other for ever
    overflow    what is remembered of segments for which there is no memory (shadow mode)
    commit      comparing, and releasing what was found equal
    late        frames that found no counterpart in time: held ones, and in shadow mode those that have left
    opening     SYNs, and connections that are taken over from the middle
    control     segments with SYN, FIN or RST, and segments of connections that are not being compared
    flow        the entrance: segments of both guests, and what compare asks of every kind of flow
"""
