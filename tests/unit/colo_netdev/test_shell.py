"""netdev's shell: what every shell does when it opens and on SIGHUP suits a core that takes no rules.

Opening a tap needs privileges; the lab ring does that.
"""

from colo_netdev.config import NetdevConfig
from colo_netdev.netdev import Netdev
from colo_netdev.shell import NetdevShell
from colo_runtime.options import CommonConfig
from runtime_helpers import Log


def test_it_has_no_files_to_load_and_can_be_asked_to():
    log = Log()
    shell = NetdevShell(Netdev(NetdevConfig(listen="/run/netdev.sock", tap=("lan",))), CommonConfig(id="netdev"), log)
    shell.reload()
    assert log.events("process.reloaded") == [{}]
    shell.close()
