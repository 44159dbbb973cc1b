"""Options of `colo compare`; names and defaults are QEMU's where QEMU has the option."""

from dataclasses import dataclass
from typing import Any, Final

from colo_proto.config import MAX_BYTES, MAX_FLOWS, option
from colo_proto.messages import Mode
from colo_proto.topology import WINDOWS_BYTES

_MS: Final[dict[str, Any]] = {"unit": "ms", "least": 1, "most": 2**32 - 1}
_MIB: Final[dict[str, Any]] = {"unit": "MiB", "least": 1, "most": MAX_BYTES >> 20}
_MODES = "enforce; shadow: release at once, compare and report; bypass: compare nothing"
_SECONDARY_MIB = "bound on all that is kept of the secondary, the history of streams included"
_WINDOWS = "bound on the windows offered to all clients that send, together; 0: no bound"
_RULES = "file of rules for chosen flows (pass, shadow, masks); SIGHUP reads it again"
_FILES = "how many of them; the oldest is overwritten"


@dataclass(frozen=True, slots=True)
class CompareConfig:
    primary_in: str = option("", kind="endpoint", help="frames of the primary guest")
    secondary_in: str = option("", kind="endpoint", help="frames of the secondary guest, rewritten")
    outdev: str = option("", kind="endpoint", help="released frames of the primary guest")
    compare_timeout: int = option(3000, **_MS, help="age at which a held primary frame asks for a checkpoint")
    expired_scan_cycle: int = option(1000, **_MS, help="how often ages are looked at")
    max_queue_size: int = option(1024, unit="frames", least=1, most=2**32 - 1, help="bound per flow and direction")
    mode: str = option(Mode.ENFORCE, choices=Mode.ALL, help=_MODES)
    max_flows: int = option(65536, unit="flows", least=8, most=MAX_FLOWS, help="bound on the table of flows")
    max_stream_mib: int = option(16, **_MIB, help="how far the secondary's stream may run ahead of what was compared")
    max_held_mib: int = option(256, **_MIB, help="bound on all held primary frames")
    max_secondary_mib: int = option(256, **_MIB, help=_SECONDARY_MIB)
    max_windows_mib: int = option(WINDOWS_BYTES >> 20, unit="MiB", least=0, most=MAX_BYTES >> 20, help=_WINDOWS)
    rules: str = option("", kind="rules", help=_RULES)
    evidence_dir: str = option("", kind="path", help="keep the frames around each difference there, as pcapng")
    evidence_files: int = option(32, unit="files", least=0, most=1_000_000, help=_FILES)
    notify_dev: str = option(
        "", kind="endpoint", help="control link to the COLO frame; on a chardev, QEMU's notify_dev words"
    )
    id: str = option("comp0", kind="hidden", help="name of this worker")
