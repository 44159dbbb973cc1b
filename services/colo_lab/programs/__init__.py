r"""Programs to try the proxy with: a server whose answers depend only on the request, and clients that check them.

::

    colo lab --guest 'python3 -m colo_lab.programs.server' \
        -- python3 -m colo_lab.programs.client download --size 1000000000
"""
