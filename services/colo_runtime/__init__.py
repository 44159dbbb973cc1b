"""The one shell around every core: links, taps, the loop, control, metrics, logs, and options.

::

      links, taps ----> Link ---- deliver(frames) ---->  core.receive  ----> Send ----> Link ----> links, taps
      frame       <---> Control -- message ----------->  core.tell           Tell ----> Control
      clock       ----> Reactor ---------------------->  core.on_timer       Log -----> structlog

======================  ==========================================================================
module                  holds
======================  ==========================================================================
`reactor`               one epoll(7) loop: watched sockets and descriptors, timers, signals
`shell`                 `Shell`: what all processes have in common
`filtershell`           `FilterShell`: around a filter's core; `abilities`: what that may have beside the rest
`service`               `Service`: what a process is made of, and the way from its settings to its running shell
`commandline`           the command of one service, and what becomes of errors
`context`               `Context`: what the links of one process share
`link`                  `Link`, the interface of all links
`links`                 endpoint -> link
`zmqsocket`             making ZeroMQ sockets
`monitor`, `doors`      their connections, and bounds on what strangers can take
`dialling`              a ZeroMQ context of its own for a link that connects to a name
`zmqlink`               plain links; `splitlink`: outputs shared out by flow; `reliable`: replayed ones
`curve`                 keys between hosts: files, who is let in, reloading
`tap`                   taps by descriptor from netdev
`stream`, `chardevlink` byte streams and QEMU's framing on them
`pcaplink`, `capture`   captures as input and output
`control`, `notify`     the control link to the frame; QEMU's `notify_dev` words instead
`client`                `ask`: one question to a frame
`counting`, `http`      what is measured, and `/metrics` `/health` `/ready`
`logs`                  structlog, JSON unless on a terminal
`options`               defaults < file < environment < flags
`descriptors`           packets with file descriptors
======================  ==========================================================================
"""
