r"""The lab: the whole proxy on one machine, in namespaces, on real traffic.

::

      client ns                host-p ns          veth          host-s ns
      br0 10.77.0.1  lan-p ==> netdev mirror … compare frame <-> rewriter … netdev frame
             \       lan-s  (secondary's, idle until a failover)  ==> host-s
                               || tap                            || tap
                             guest-p ns                        guest-s ns
                             eth0 10.77.0.2                    eth0 10.77.0.2, same MAC

Every filter is a process of its own, in the namespace of its host; the two hosts are joined by a
veth pair, so cross-host links are real TCP and can be cut.

=============  ==============================================================================
module         holds
=============  ==============================================================================
`config`       `LabConfig`: what the command line says; the addresses
`elevate`      root, or a user namespace, or a plain answer why not
`spaces`       `Spaces`: the five namespaces, the bridge, the veth, addresses
`children`     `Child`: one process, entered into its namespace, ended with the lab, accounted
`guard`        a tiny process that clears up when the lab itself was killed
`watch`        what the frames say: readiness, counters, settling
`invariants`   from counters to held, violated, unknown (pure)
`report`       the report file (pure)
`lab`          `Lab`: up, run_client, kill, report, down
`table`        the live table
`cli`          `colo lab`
=============  ==============================================================================
"""
