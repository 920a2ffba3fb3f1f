"""What a mean ceph node makes of a qcow2: headers that lead qemu to something else. Also a script: FILE KIND [NAME].

Only bytes of the first cluster change, so that the file keeps its length and its content.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import Callable

_BACKING_FORMAT, _DATA_FILE = 0xE2792ACA, 0x44415441
_EXTENSIONS = 112  # where they begin, if the header has the length that qemu-img gives it


def _patch(path: Path, *changes: tuple[int, bytes]) -> None:
    status = path.stat()
    with path.open("r+b") as file:
        for at, content in changes:
            file.seek(at)
            file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8) + bytes(8)


def _backed(path: Path, name: str, file_format: str) -> None:
    encoded = name.encode()
    extension = _extension(_BACKING_FORMAT, file_format.encode())
    at = _EXTENSIONS + len(extension)
    _patch(path, (8, struct.pack(">QI", at, len(encoded))), (_EXTENSIONS, extension + encoded))


def backing(path: Path, name: str) -> None:
    _backed(path, name, "raw")


def backing_json(path: Path, name: str) -> None:
    _backed(path, f'json:{{"driver":"raw","file":{{"driver":"file","filename":"{name}"}}}}', "raw")


def backing_nbd(path: Path, port: str) -> None:
    _backed(path, f"nbd://127.0.0.1:{port}", "raw")


def backing_day(path: Path, _name: str) -> None:
    _backed(path, f"../daily.0/{path.name.partition('.')[0]}.qcow2", "qcow2")


def data_file(path: Path, name: str) -> None:
    _patch(path, (72, struct.pack(">Q", 1 << 2)), (_EXTENSIONS, _extension(_DATA_FILE, name.encode())))


def old_version(path: Path, _name: str) -> None:
    _patch(path, (4, struct.pack(">I", 2)))


def encrypted(path: Path, _name: str) -> None:
    _patch(path, (32, struct.pack(">I", 1)))


def with_snapshots(path: Path, _name: str) -> None:
    _patch(path, (60, struct.pack(">I", 1)))


KINDS: dict[str, tuple[Callable[[Path, str], None], str]] = {
    "backing": (backing, "backing file"),
    "backing_json": (backing_json, "backing file"),
    "backing_nbd": (backing_nbd, "backing file"),
    "backing_day": (backing_day, "backing file"),
    "data_file": (data_file, "external data file"),
    "old_version": (old_version, "version 2"),
    "encrypted": (encrypted, "encrypted"),
    "with_snapshots": (with_snapshots, "internal snapshots"),
}
"""What changes the file, and what is said of it."""

if __name__ == "__main__":
    KINDS[sys.argv[2]][0](Path(sys.argv[1]), sys.argv[3])
