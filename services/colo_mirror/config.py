"""Options of `colo mirror`."""

from dataclasses import dataclass

from colo_proto.config import option
from colo_proto.lan import CLAIMS


@dataclass(frozen=True, slots=True)
class MirrorConfig:
    netdev: str = option("", kind="endpoint", help="where client frames come from, usually the client tap")
    next: str = option("", kind="endpoint", help="where they go on to, usually the guest tap")
    outdev: str = option("", kind="endpoint", help="where the copies go: the mirror link to the secondary")
    claims: str = option("", kind="endpoint", help=CLAIMS.doc)
