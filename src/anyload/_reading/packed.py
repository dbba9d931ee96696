"""A packed file, unpacked from front to back: in small steps, and checked to its end.

Python's own `gzip`, `bz2` and `lzma` files stop where the tar in them does, before the checksum;
they skip any distance at one go, and each version of Python has its own way of reading.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Protocol

STEP = 256 * 1024
"""Bytes that are read, and bytes that are unpacked, at once."""
LITTLE, MOST_OF_LITTLE = 1024, 8 * 1024
"""How many streams may hold less than how many bytes: each has to be begun anew."""
LONGEST_END = 1024 * 1024
"""The most bytes behind the last one that is asked for; a tar is filled up to 10 KiB as a rule."""


class Decompressor(Protocol):
    """What unpacks one stream, as those of `bz2` and `lzma` do."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Gzip:
    """Unpacks one stream of gzip, and checks its sum and its length, which `zlib` does itself."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def xz() -> Decompressor:
    """Return what unpacks one stream of xz.

    A dictionary may be said to have 1.5 GiB: liblzma takes real memory for it only as it fills, so
    for no more than what is unpacked, and that has its limit.
    """
    return lzma.LZMADecompressor(lzma.FORMAT_XZ)


class Unpacked:
    """What a packed file holds.

    It may be of several streams, and zeros may be between and behind them, as the three formats
    have it; anything else is damage.

    Args:
        file: the packed file.
        begin: returns what unpacks a stream, such as `Gzip`, `bz2.BZ2Decompressor` or `xz`.
        between: called for each step; what it raises ends this.
    """

    def __init__(
        self, file: IO[bytes], begin: Callable[[], Decompressor], between: Callable[[], object]
    ) -> None:
        self._file = file
        self._begin = begin
        self._between = between
        self._stream = begin()
        self._packed = b""  # which has been read, and is the next stream's
        self._held = self._of_little = 0
        self._ended = False
        self._ready = io.BytesIO()
        self._position = 0

    def read(self, size: int) -> bytes:
        """Return so many bytes, or all that are left.

        Raises:
            EOFError: the file is cut short.
            ValueError: it is packed in too many pieces.
            Exception: of other kinds, from the decompressors: it is damaged.
        """
        data = self._ready.read(size)
        while len(data) < size and (more := self._more()):
            self._ready = io.BytesIO(more)
            data += self._ready.read(size - len(data))
        self._position += len(data)
        return data

    def seek(self, position: int) -> None:
        """Go on to a position behind the one where this is, or to the end; raises as `read`."""
        while self._position < position and self.read(min(STEP, position - self._position)):
            pass

    def finish(self) -> None:
        """Read what is left, so that whatever is damaged is found; raises as `read`, and for much.

        What is left is not looked at: to a tar's readers its end is its end.
        """
        left = LONGEST_END
        while data := self._more():
            left -= len(data)
            if left < 0:
                raise ValueError("it goes on behind its end")

    def _more(self) -> bytes:
        """Return some of what comes next; nothing at the end only."""
        while not self._ended:
            self._between()
            if self._stream.eof:
                self._next_stream()
                continue
            hungry, packed = self._stream.needs_input, b""
            if hungry:
                packed, self._packed = self._packed or self._file.read(STEP), b""
            data = self._stream.decompress(packed, STEP)
            if data:
                self._held += len(data)
                return data
            if hungry and not packed and not self._stream.eof:
                raise EOFError("it is cut short")
        return b""

    def _next_stream(self) -> None:
        """Begin the stream behind the one that has ended, if there is one."""
        if self._held < LITTLE:
            self._of_little += 1
            if self._of_little > MOST_OF_LITTLE:
                raise ValueError("it is packed in too many pieces")
        packed = self._stream.unused_data.lstrip(b"\0")
        while not packed:
            self._between()
            read = self._file.read(STEP)
            if not read:
                self._ended = True
                return
            packed = read.lstrip(b"\0")
        self._stream, self._packed, self._held = self._begin(), packed, 0
