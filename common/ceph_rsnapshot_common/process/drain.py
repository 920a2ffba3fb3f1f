"""A pipe from a process is read while it runs, so that a full pipe never blocks it."""

from __future__ import annotations

import os
import threading
from typing import IO, Callable

_KEPT_BYTES = 1024 * 1024
_LEFT_OPEN_SECONDS = 2.0


class Drain:
    """Reads ``pipe`` in a thread and keeps the end of what came."""

    def __init__(self, pipe: IO[bytes] | None, on_text: Callable[[str], None] | None = None) -> None:
        """``on_text`` gets the text as it comes, in that thread."""
        assert pipe is not None
        self._pipe = pipe
        self._on_text = on_text
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """The end of all that came; ask when the process has ended."""
        # a grandchild may keep the pipe open: what has come by now is enough
        self._thread.join(_LEFT_OPEN_SECONDS)
        return self._kept.decode("utf-8", "replace")

    def _read(self) -> None:
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), 65536):
                self._kept += chunk
                del self._kept[:-_KEPT_BYTES]
                if self._on_text:
                    self._on_text(chunk.decode("utf-8", "replace"))
