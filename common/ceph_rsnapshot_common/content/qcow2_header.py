"""The header of a qcow2 file, read before any program of qemu opens the file: it must stand for itself.

A header can name other files (a backing file, a data file) and whatever else qemu knows how to open; qemu-img would
read them with the rights of whoever runs it. Only what this program makes is accepted. The format:
https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.rst
"""

from __future__ import annotations

import struct
from typing import NamedTuple

READ_BYTES = 65536
"""How much of the file `check_header` wants to see, if there is so much."""

SECTOR = 512
"""What the size of a qcow2 is a multiple of."""

_MAGIC = b"QFI\xfb"
_LONGEST_HEADER = 4096
_KNOWN_HEADER = 112
_COMPRESSION_TYPE = 1 << 3  # of the incompatible features; set for zstd only
_ZLIB, _ZSTD = 0, 1
_LARGEST = 2**63 - SECTOR
_LARGEST_TABLE = 32 * 1024**2
_FEATURES = {0: "was not closed (dirty)", 1: "is marked corrupt", 2: "external data file", 4: "extended L2 entries"}
_END, _FEATURE_NAMES = 0, 0x6803F857
_EXTENSIONS = {
    0xE2792ACA: "the format of a backing file",
    0x44415441: "an external data file",
    0x23852875: "bitmaps",
    0x0537BE77: "encryption",
}


class HeaderRefused(ValueError):
    """The file is no qcow2 that stands for itself; the text says why."""


class _Fields(NamedTuple):
    """The header's fields in their order; offsets and sizes in bytes if nothing else is said."""

    magic: bytes
    version: int
    backing_offset: int
    backing_length: int
    cluster_bits: int
    size: int
    encryption: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int
    compatible: int
    autoclear: int
    refcount_order: int
    header_length: int


_LAYOUT = struct.Struct(">4sIQIIQIIQQIIQQQQII")


def check_header(head: bytes, file_size: int, size: int | None = None) -> None:
    """See that a qcow2 can be opened without opening anything else.

    Args:
        head: its first `READ_BYTES`, or all of a shorter file.
        file_size: bytes of the file.
        size: bytes of the image that it should hold; None: any.

    Raises:
        HeaderRefused
    """
    if len(head) < _LAYOUT.size or not head.startswith(_MAGIC):
        raise HeaderRefused("it is no qcow2")
    fields = _Fields._make(_LAYOUT.unpack_from(head))
    if fields.version != 3:
        raise HeaderRefused(f"it is a qcow2 of version {fields.version}; only version 3 is read")
    if fields.backing_offset or fields.backing_length:
        raise HeaderRefused("it names a backing file")
    _check_features(fields)
    _check_geometry(fields, size)
    _check_table("L1 table", fields.l1_offset, fields.l1_entries * 8, fields, file_size)
    refcounts = fields.refcount_clusters << fields.cluster_bits
    _check_table("refcount table", fields.refcount_offset, refcounts, fields, file_size)
    _check_rest(head, fields)


def _check_features(fields: _Fields) -> None:
    if fields.encryption:
        raise HeaderRefused("it is encrypted")
    if fields.snapshots:
        raise HeaderRefused("it has internal snapshots")
    unwanted = fields.incompatible & ~_COMPRESSION_TYPE
    if unwanted:
        names = [_FEATURES.get(bit, f"unknown feature {bit}") for bit in range(64) if unwanted >> bit & 1]
        raise HeaderRefused(f"it has features that are not wanted: {', '.join(names)}")
    if fields.autoclear:
        raise HeaderRefused(f"it has features that are not wanted: autoclear bits {fields.autoclear:#x}")


def _check_geometry(fields: _Fields, size: int | None) -> None:
    if not 9 <= fields.cluster_bits <= 21:
        raise HeaderRefused(f"its clusters have 2^{fields.cluster_bits} bytes")
    if fields.refcount_order > 6:
        raise HeaderRefused(f"its reference counts have 2^{fields.refcount_order} bits")
    if fields.size > _LARGEST:
        raise HeaderRefused(f"its size is {fields.size} bytes")
    if size is not None and fields.size != -(-size // SECTOR) * SECTOR:
        raise HeaderRefused(f"it is an image of {fields.size} bytes, and the backed-up image has {size}")
    if fields.l1_entries < -(-fields.size // _mapped_by_l1(1 << fields.cluster_bits)):
        raise HeaderRefused("its L1 table is too short for its size")


def _check_table(name: str, offset: int, length: int, fields: _Fields, file_size: int) -> None:
    if offset % (1 << fields.cluster_bits) or length > _LARGEST_TABLE or offset + length > file_size:
        raise HeaderRefused(f"its {name} ({length} bytes at {offset}) does not lie in the file")
    if length and not offset:
        raise HeaderRefused(f"its {name} lies on the header")


def _check_rest(head: bytes, fields: _Fields) -> None:
    """What follows the fields: the compression type, and extensions, which end within the first cluster."""
    length, end = fields.header_length, min(len(head), 1 << fields.cluster_bits)
    if length % 8 or not _LAYOUT.size <= length <= min(end, _LONGEST_HEADER) or any(head[_KNOWN_HEADER:length]):
        raise HeaderRefused(f"its header has a length of {length} bytes, or fields that are not known")
    compression = head[_LAYOUT.size] if length > _LAYOUT.size else _ZLIB
    expected = _ZSTD if fields.incompatible & _COMPRESSION_TYPE else _ZLIB
    if compression != expected or any(head[_LAYOUT.size + 1 : min(length, _KNOWN_HEADER)]):
        raise HeaderRefused(f"its compression type {compression} is not known")
    _check_extensions(head[length:end])


def _check_extensions(area: bytes) -> None:
    at = 0
    while at < len(area):  # a feature table may leave no room for an end mark in the first cluster
        if at + 8 > len(area):
            raise HeaderRefused("its header extensions do not end")
        kind, length = struct.unpack_from(">II", area, at)
        if kind == _END:
            return
        if kind != _FEATURE_NAMES:
            raise HeaderRefused(f"its header has an extension for {_EXTENSIONS.get(kind, f'{kind:#x}')}")
        at += 8 + -(-length // 8) * 8
        if at > len(area):
            raise HeaderRefused("its header extensions do not end")


def _mapped_by_l1(cluster: int) -> int:
    """Bytes of an image that an entry of the L1 table stands for: one L2 table, of one cluster."""
    return cluster // 8 * cluster


def longest_file(size: int, cluster: int) -> int:
    """Bytes that a qcow2 of an image of ``size`` bytes with clusters of ``cluster`` bytes has at most.

    All clusters of data (a compressed one takes no more), their L2 tables and the L1 table, a reference count of two
    bytes for each cluster, and as much again as these tables take, because tables that grow move and leave gaps.
    """
    data = -(-size // cluster)
    l2_tables = -(-size // _mapped_by_l1(cluster))
    tables = l2_tables + -(-l2_tables * 8 // cluster)
    counted = data + 2 * tables
    blocks = -(-counted * 2 // cluster) + 1
    tables += blocks + -(-blocks * 8 // cluster)
    return (data + 2 * tables + 64) * cluster + 1024**2
