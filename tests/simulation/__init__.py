"""A whole pair in one process, on a virtual clock, every fault from a seed.

::

    client hosts --- lan --- m0 ... f1 --- rew0 --- secondary guest        hosts: small TCP/IP models
         |                    |               |                            processes: the real cores
         +---- redire0 --- compare x N --- f2-+                            links: as the real ones lose and replay
                              |
                           redire1 --- primary guest            oracle: looks at every step, knows everything

* `clock`   events in virtual time, and the trace of what happened last
* `wire`    frames of the hosts, built and read by code that the proxy does not use
* `tcp`     one TCP connection's end;  `host` the stack around it;  `apps` what runs on it
* `links`   taps, plain, split and reliable links;  `process` a core that can be killed and paused
* `pair`    everything joined as `colo_proto.topology` says
* `plan`    what a seed means: hosts, traffic, faults
* `extras`  what may happen beside that: reordering, early ends, changing cookies, stray SYNs
* `oracle`  the invariants, from what the hosts' sockets know;  `streams` those of what leaves on a connection
* `run`     one seed from start to verdict;  `mutants` broken cores that must be caught

`python -m tests.simulation --seeds 1000` runs many, `--seed 17 --trace` shows one.
"""
