"""A whole pair in one process, on a virtual clock. Every fault follows from a seed.

::

    client hosts --- lan --- m0 ... f1 --- rew0 --- secondary guest        hosts: small TCP/IP models
         |                    |               |                            processes: the real cores
         +---- redire0 --- compare x N --- f2-+                            links: lose and replay as the real ones do
                              |
                           redire1 --- primary guest            oracle: checks every step, knows everything

* `clock`    events in virtual time, and a trace of the last of them
* `wire`     frames of the hosts, built and read by code that the proxy does not use
* `tcp`      one end of a TCP connection: what it knows is in `tcb`, its halves are `sending` and `receiving`
* `host`     the stack around TCP;  `apps` what runs on it;  `guests` hosts on the clock, and the driver that copies one
* `links`    taps, plain, split and reliable links;  `lan` the clients' network
* `process`  a core that can be killed and paused
* `pair`     everything connected as `colo_proto.topology` says, and the faults;  `traffic` what clients do with it
* `plan`     what a seed means: hosts, traffic, faults
* `extras`   what may happen in addition: reordering, early ends, changing cookies, stray SYNs
* `oracle`   the invariants;  `releases` those about what compare releases, judged by the sockets of both guests;
             `streams` those about what leaves on a connection
* `run`      one seed from start to verdict;  `mutants` broken cores that must be found

`python -m tests.simulation --seeds 1000` runs many, `--seed 17 --trace` shows one.
"""
