"""Fuzzing: mutated frames, batches and byte streams into everything that reads what others send.

::

    corpus   frames of every kind, and connections that are half right        seed, round
    mutate   bytes, lengths, msgpack structures                                   |
    targets  proto, compare, rewriter, codec, chardev, capture   <---- round -----+

One *round* builds fresh objects, feeds a few hundred inputs and then adds up the books. No exception may escape (the
decoders may raise `WireError`, which is what they are documented to do), counters must add up, nothing may be left
after a drain. A failure names the seed and the round that show it again:

    python -m tests.fuzz --inputs 10000000 --seed 1
    python -m tests.fuzz --seed 1 --round 4711
"""
