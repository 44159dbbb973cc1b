r"""The lab: the whole proxy on one machine, in namespaces, on real traffic.

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
`elevate`      root, or a user namespace, or a plain answer why not
`files`        writing the report and the state file
`spaces`       `Spaces`: the five namespaces, the bridge, the veth, addresses
`guests`       how the command of a guest is started (pure)
`observed`     `Process`: what was observed of a process, and what is read from it (pure)
`children`     `Child`: one process, entered into its namespace, ended with the lab, accounted
`crew`         `Crew`: all processes together, restarted when they die
`launch`       `Launcher`: which command each process has, and in which namespace it is started
`watch`        what the frames say: readiness, counters, settling
`ready`        waiting until what was started is ready
`running`      `ClientRun`: what ends the client's command, and the exit status
`look`         the processes, the capture on the LAN, and the state file, while the lab is up
`invariants`   from counters to held, violated, unknown (pure)
`report`       the report file (pure)
`lab`          `Lab`: up, run_client, kill, report, down
`table`        the live table
`demo`         `colo demo`
`cli`          `colo lab`
`guard`        a small process of its own: it clears up when the lab itself was killed
`impair`       a process of its own: a bad LAN between the client and the hosts
`lanwatch`     a process of its own: a capture on the client LAN
=============  ==============================================================================
"""
