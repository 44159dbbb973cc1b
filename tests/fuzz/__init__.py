"""Fuzzing: mutated frames, batches and byte streams for all code that reads input from others.

::

    corpus   frames of every kind, and connections that are nearly right        seed, round
    mutate   bytes, lengths, msgpack structures                                   |
    targets  proto, compare, rewriter, codec, chardev, capture   <---- round -----+

One *round* makes new objects, feeds a few hundred inputs and then checks the counters. No exception may escape (except
`WireError` of the decoders, which is documented), the counters must add up, and nothing may be left after a drain. A
failure names the seed and the round that repeat it:

    python -m tests.fuzz --inputs 10000000 --seed 1
    python -m tests.fuzz --seed 1 --round 4711
"""
