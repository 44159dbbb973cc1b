"""The one shell around every core: links, taps, the loop, control, metrics, logs, and options.

::

      links, taps ----> Link ---- pass_on(frames) ---->  core.receive  ----> Send ----> Link ----> links, taps
      frame       <---> Control -- message ----------->  core.tell           Tell ----> Control
      clock       ----> Reactor ---------------------->  core.on_timer       Log -----> structlog

==========================  ======================================================================
module                      holds
==========================  ======================================================================
`reactor`                   one epoll(7) loop: watched sockets and descriptors, timers, signals
`shell`                     `Shell`: what the shells of all processes have in common
`filtershell`, `abilities`  `FilterShell`: around the core of a filter; what such a core may have beside the rest
`service`                   `Service`: what a process is made of, and the way from its settings to its running shell
`options`                   the sources of settings: default < file < environment < command line
`commandline`               the command of one service, and the reporting of errors
`context`                   `Context`: what the links of one process share
`link`, `links`             `Link`, the interface of all links; from an endpoint to its link
`zmqsocket`, `zmqoptions`   the life of a ZeroMQ socket; its options
`monitor`, `doors`          the connections of a ZeroMQ socket, and bounds on what strangers can take
`dialling`                  a separate ZeroMQ context for a link that connects to a name
`zmqlink`                   plain links; `splitlink`: outputs distributed by flow; `reliable`: replayed links
`curve`                     keys between hosts: who is let in, reloading
`tap`                       taps, by descriptors from netdev
`stream`, `chardevlink`     byte streams, and QEMU's framing on them
`pcaplink`, `capture`       captures as input and output
`pressure`                  inputs rest while outputs have too much to send
`control`, `notify`         the control link to the COLO frame; QEMU's `notify_dev` words in its place
`client`                    `ask`: one request to a COLO frame
`counting`, `http`          everything that is counted, and `/metrics` `/health` `/ready`
`files`                     reading and writing small text files; `rulesfile`, `secretfile`: files read again at SIGHUP
`logs`, `tuning`            structlog; the use of processor and memory
`descriptors`, `socketfile` packets with file descriptors; the files of bound Unix sockets
==========================  ======================================================================
"""
