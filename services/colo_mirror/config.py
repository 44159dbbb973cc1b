"""Options of `colo mirror`."""

from dataclasses import dataclass

from colo_proto.config import MAX_BYTES, option
from colo_proto.lan import CLAIMS
from colo_proto.topology import WINDOWS_BYTES

_WINDOWS = "bound on the windows of all clients that receive, together; 0: pass every window on as it is"

_ROLES = "fixed: this host is the primary; change: pass frames on only while the COLO frame says that this host leads"


@dataclass(frozen=True, slots=True)
class MirrorConfig:
    netdev: str = option("", kind="endpoint", help="where client frames come from, usually the client tap")
    next: str = option("", kind="endpoint", help="where they go on to, usually the guest tap")
    outdev: str = option("", kind="endpoint", help="where the copies go: the mirror link to the secondary")
    claims: str = option("", kind="endpoint", help=CLAIMS.doc)
    roles: str = option("fixed", choices=("fixed", "change"), help=_ROLES)
    max_windows_mib: int = option(WINDOWS_BYTES >> 20, unit="MiB", least=0, most=MAX_BYTES >> 20, help=_WINDOWS)
