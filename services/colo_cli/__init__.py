"""The `colo` command: all services as subcommands, and what an operator asks of running processes.

==============  ==================================================================================
module          holds
==============  ==================================================================================
`cli`           the command group, and the commands that need only a few lines
`querying`      the commands that talk to a frame: `status`, `mode`, `rules`, `failover`, `resync`
`orders`        giving a frame an order, and waiting until it is carried out
`statusview`    the answer to `colo status` as a table
`pairview`      its head: the verdict, and both sides of the pair
`shown`         values of such an answer, of whichever version
`checking`      `colo check`: a configuration file with all values resolved
==============  ==================================================================================
"""
