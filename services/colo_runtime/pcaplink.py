"""A capture as a link: read as fast as the rest keeps up, or written."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from colo_proto.errors import ConfigError, WireError
from colo_proto.frame import MAX_FRAME, MIN_FRAME, Buffer, plain
from colo_proto.net.offload import to_plain
from colo_runtime.capture import CaptureWriter, read_capture
from colo_runtime.link import BATCH_BYTES, BATCH_FRAMES, Link
from colo_runtime.reactor import Timer

PATIENCE: Final = 0.001
"""Seconds to wait when outputs are full."""


class PcapLink(Link):
    """See the module."""

    def open(self) -> None:
        """Open the file. `ConfigError` when that fails, or when it is no capture."""
        if self.reads and self.writes:
            raise ConfigError(f"{self.option}: a capture is read or written, not both")
        self._timer: Timer | None = None
        self._written = 0
        path = self.endpoint.address
        try:
            self._file: BinaryIO = Path(path).open("rb" if self.reads else "wb")  # noqa: SIM115  closed by `close`
        except OSError as error:
            raise ConfigError(f"{self.option}: {path}: {error.strerror}") from None
        if self.writes:
            self._writer = CaptureWriter(self._file)
            return
        self._frames: Iterator[bytes] = read_capture(self._file)
        self._first: list[bytes] = []
        try:
            self._first = [next(self._frames)]
        except StopIteration:
            pass
        except (WireError, OSError) as error:
            self._file.close()
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"{self.option}: {path}: {why}") from None
        self._timer = self.context.reactor.call_later(0, self._read)

    def _read(self) -> None:
        if self.context.congested():
            self._timer = self.context.reactor.call_later(PATIENCE, self._read)
            return
        frames, self._first = self._first, []
        size = 0
        try:
            for frame in self._frames:
                frames.append(frame)
                size += len(frame)
                if size >= BATCH_BYTES or len(frames) >= BATCH_FRAMES:
                    break
            else:
                self.ended = True
        except WireError as error:
            self.garbage(error, file=self.endpoint.address)
            self.ended = self.failed = True
        except OSError as error:
            self.garbage(WireError("unreadable", error.strerror or ""), file=self.endpoint.address)
            self.ended = self.failed = True
        batch = [plain(frame) for frame in frames]
        good = [frame for frame in batch if MIN_FRAME <= len(frame) <= MAX_FRAME]
        if len(good) < len(batch):
            self.drop("size", len(batch) - len(good))
        self.took(good)
        if good:
            self.deliver(good)
        if self.ended:
            self._timer = None
            self.context.log("info", "capture.ended", port=self.port, frames=self.counters["frames_in"])
            self.context.on_end()
        else:
            self._timer = self.context.reactor.call_later(0, self._read)

    def send(self, frames: Sequence[Buffer]) -> None:
        """Write them, offloads done."""
        self.gave(frames)
        now = time.time()
        for frame in frames:
            ethernet = to_plain(frame)
            if not ethernet:
                self.drop("offload")
            for one in ethernet:
                self._write(one, now)

    def _write(self, frame: bytes, now: float) -> None:
        try:
            if not self.failed:
                self._writer.write(frame, now)
        except OSError:
            # Half a record may be in the file: nothing can follow it.
            self.failed = True
        if self.failed:
            self.drop("not_written")

    def stop_reading(self) -> None:
        """Read no further."""
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Close the file; what is still in its buffer goes out."""
        self.stop_reading()
        try:
            self._file.close()
        except OSError as error:
            self.failed = True
            self.context.complain("file.not_written", self.port, path=self.endpoint.address, error=error.strerror)
