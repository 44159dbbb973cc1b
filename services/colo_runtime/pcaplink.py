"""A capture as a link: it is read as fast as the other links keep up, or written."""

import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Final

from colo_proto.errors import ConfigError, WireError
from colo_proto.frame import MAX_FRAME, MIN_FRAME, Buffer, plain
from colo_proto.net.offload import to_plain
from colo_runtime.capture import CaptureWriter, read_capture
from colo_runtime.link import BATCH_BYTES, BATCH_FRAMES, Link
from colo_runtime.reactor import IDLE

CONGESTED_PAUSE: Final = 0.001
"""Seconds without reading when outputs have much to send."""


class PcapLink(Link):
    """See the module."""

    def open(self) -> None:
        """Open the file. `ConfigError` when that fails, or when the file is not a capture."""
        if self.reads and self.writes:
            raise ConfigError(f"{self.option}: a capture is read or written, not both")
        self._timer = IDLE
        path = self.endpoint.address
        try:
            self._file: BinaryIO = Path(path).open("rb" if self.reads else "wb")  # noqa: SIM115  closed by `close`
        except OSError as error:
            raise ConfigError(f"{self.option}: {path}: {error.strerror}") from None
        if self.writes:
            self._writer = CaptureWriter(self._file)
            return
        frames = read_capture(self._file)
        try:
            # Reading the first frame shows whether this is a capture at all.
            self._frames: Iterator[bytes] = chain(list(islice(frames, 1)), frames)
        except (WireError, OSError) as error:
            self._file.close()
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"{self.option}: {path}: {why}") from None
        self._timer = self.context.reactor.call_later(0, self._read)

    def _read(self) -> None:
        if self.context.congested():
            self._timer = self.context.reactor.call_later(CONGESTED_PAUSE, self._read)
            return
        frames: list[bytes] = []
        size = 0
        try:
            for frame in self._frames:
                frames.append(plain(frame))
                size += len(frame)
                if size >= BATCH_BYTES or len(frames) >= BATCH_FRAMES:
                    break
            else:
                self.ended = True
        except (WireError, OSError) as error:
            wrong = error if isinstance(error, WireError) else WireError("unreadable", error.strerror or "")
            self.refuse(wrong, file=self.endpoint.address)
            self.ended = self.failed = True
        valid = [frame for frame in frames if MIN_FRAME <= len(frame) <= MAX_FRAME]
        if len(valid) < len(frames):
            self.drop("size", len(frames) - len(valid))
        if valid:
            self.pass_on(valid)
        if self.ended:
            self.context.log("info", "capture.ended", port=self.port, frames=self.counters["frames_in"])
            self.context.on_end()
        else:
            self._timer = self.context.reactor.call_later(0, self._read)

    def send(self, frames: Sequence[Buffer]) -> None:
        """Write the frames, after doing their offloads."""
        self.count_sent(frames)
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
            # The file may end with half a record now, and nothing can follow that.
            self.failed = True
        if self.failed:
            self.drop("not_written")

    def stop_reading(self) -> None:
        """Stop reading."""
        self._timer.cancel()

    def close(self) -> None:
        """Close the file, after writing what is still in its buffer."""
        self.stop_reading()
        try:
            self._file.close()
        except OSError as error:
            self.failed = True
            self.context.complain("file.not_written", self.port, path=self.endpoint.address, error=error.strerror)
