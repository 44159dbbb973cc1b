"""netdev: the process that opens the taps and hands their descriptors out.

::

      /dev/net/tun --TUNSETIFF--> tap --+-- kernel side: bridge, or a guest's namespace
                                        |
                                     netdev  keeps a copy of every descriptor, never reads one
                                        |
                    Unix SOCK_SEQPACKET, SCM_RIGHTS, one request and one reply at a time
                                        |
                     mirror, redirector, rewriter, compare: read and write the frames

==========  ===============================================================================
module      holds
==========  ===============================================================================
`config`    `NetdevConfig`, `TapSpec`, `Grant`: what the command line says
`allow`     who may have which tap
`taps`      opening, configuring and placing a tap; checking a returned one
`overflow`  how many frames the kernel dropped at a tap
`netns`     network namespaces: entering one, and changing interfaces in one
`hold`      `colo netns`: offers the namespace that it runs in
`netdev`    `Netdev`: which taps are owned or awaited, answers to requests
`server`    the socket: accepts filters, passes descriptors
`shell`     `NetdevShell`: loop, signals, `--frame`, `--http`, the end
==========  ===============================================================================

The bytes of requests and replies are in `colo_proto.netdev`.
"""
