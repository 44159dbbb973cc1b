"""The `colo` command: all services as subcommands, and what an operator asks of running processes.

==============  ==================================================================================
module          holds
==============  ==================================================================================
`cli`           the command group, and the commands that need a few lines only
`asking`        `colo mode`, `colo rules`: one question to a frame
`orders`        `colo failover`, `colo resync`: an order to a frame, and waiting until it is carried out
`statusview`    `colo status`
`checking`      `colo check`: a configuration file, resolved
==============  ==================================================================================
"""
