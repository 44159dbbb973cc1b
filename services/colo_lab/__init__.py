r"""The lab: the whole COLO (COarse-grained LOck-stepping) proxy on one machine, in namespaces, on real traffic.

::

      client ns                host-p ns          veth          host-s ns
      br0 10.77.0.1  lan-p ==> netdev mirror … compare frame <-> rewriter … netdev frame
             \       lan-s  (secondary's, idle until a failover)  ==> host-s
                               || tap                            || tap
                             guest-p ns                        guest-s ns
                             eth0 10.77.0.2                    eth0 10.77.0.2, same MAC

Every filter is a process of its own, in the namespace of its host; the two hosts are joined by a
veth pair, so that links between the hosts are real TCP and can be cut.

=============  ==============================================================================
module         holds
=============  ==============================================================================
`config`       `LabConfig`: what the command line says; the addresses
`privileges`   the privileges that a lab needs: root, or a user namespace, or a message about what is missing
`files`        writing the report and the state file
`namespaces`   `Namespaces`: the five network namespaces, the bridge, the veth pair, addresses
`observed`     `Process`: what was observed of a process, and sums over processes (pure)
`children`     `Child`: one process: entering its namespace, ending with the lab, CPU time and memory
`supervisor`   `Supervisor`: all processes together, restarted when they die
`launch`       `Launcher`: the command of each process, and the namespace in which it is started
`statuspoll`   `StatusPoll`: what the COLO frames report: readiness, counters, whether all is at rest
`clientrun`    `ClientRun`: what ends the client's command, and its exit status
`invariants`   from counters to held, violated, unknown (pure)
`report`       the report file (pure)
`lab`          `Lab`: up, run_client, fail, processes, state, report, down
`table`        the live table
`demo`         `colo demo`
`cli`          `colo lab`
`cleanup`      a process of its own: it clears up if the lab itself is killed
`impair`       a process of its own: loses and reorders frames between the client and the hosts
`lanwatch`     a process of its own: a capture on the client LAN
=============  ==============================================================================
"""
