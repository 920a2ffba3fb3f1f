"""Headers of qcow2 files, real ones and what a mean or broken node makes of them; qemu-img is the judge where it is."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ceph_rsnapshot_common.content.qcow2_header import READ_BYTES, HeaderRefused, check_header, longest_file

SIZE, CLUSTER = 10 * 1024**2, 65536
FILE = 196616  # as `qemu-img create` of 7.2 makes it: header, refcount table and block, L1 table
_FIELDS = {
    "magic": (0, 4),
    "version": (4, 4),
    "backing_offset": (8, 8),
    "backing_length": (16, 4),
    "cluster_bits": (20, 4),
    "size": (24, 8),
    "encryption": (32, 4),
    "l1_entries": (36, 4),
    "l1_offset": (40, 8),
    "refcount_offset": (48, 8),
    "refcount_clusters": (56, 4),
    "snapshots": (60, 4),
    "snapshots_offset": (64, 8),
    "incompatible": (72, 8),
    "compatible": (80, 8),
    "autoclear": (88, 8),
    "refcount_order": (96, 4),
    "header_length": (100, 4),
    "compression": (104, 1),
}
_PLAIN = {
    "magic": 0x514649FB,
    "version": 3,
    "cluster_bits": 16,
    "size": SIZE,
    "l1_entries": 1,
    "l1_offset": 0x30000,
    "refcount_offset": 0x10000,
    "refcount_clusters": 1,
    "refcount_order": 4,
    "header_length": 112,
}
with_qemu_img = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not here")


def head(extensions: bytes = b"", **changed: int) -> bytes:
    made = bytearray(READ_BYTES)
    for name, value in {**_PLAIN, **changed}.items():
        at, length = _FIELDS[name]
        made[at : at + length] = value.to_bytes(length, "big")
    made[112 : 112 + len(extensions)] = extensions
    return bytes(made)


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)


@pytest.mark.parametrize(
    ("made", "size"),
    [
        (head(), SIZE),
        (head(), SIZE - 511),
        (head(), None),
        (head(incompatible=8, compression=1), SIZE),
        (head(extension(0x6803F857, bytes(48 * 8))), SIZE),
        (head(header_length=104), SIZE),
        (head(header_length=120), SIZE),
    ],
)
def test_what_we_make_is_accepted(made: bytes, size: int | None) -> None:
    check_header(made, FILE, size)


@pytest.mark.parametrize(
    ("made", "because"),
    [
        (b"", "no qcow2"),
        (head()[:103], "no qcow2"),
        (head(magic=0x514649FC), "no qcow2"),
        (head(version=2), "version 2"),
        (head(version=4), "version 4"),
        (head(backing_offset=0x200, backing_length=11), "backing file"),
        (head(backing_offset=0x200), "backing file"),
        (head(backing_length=11), "backing file"),
        (head(encryption=2), "encrypted"),
        (head(snapshots=1), "internal snapshots"),
        (head(incompatible=1), "dirty"),
        (head(incompatible=2), "corrupt"),
        (head(incompatible=4), "external data file"),
        (head(incompatible=16), "extended L2"),
        (head(incompatible=1 << 63), "unknown feature 63"),
        (head(autoclear=2), "autoclear"),
        (head(cluster_bits=8), "2^8"),
        (head(cluster_bits=22), "2^22"),
        (head(cluster_bits=2**32 - 1), "2^"),
        (head(refcount_order=7), "reference counts"),
        (head(size=2**63), "size"),
        (head(size=SIZE + 512), "and the backed-up image has"),
        (head(l1_entries=0), "too short"),
        (head(l1_offset=0x30001), "L1 table"),
        (head(l1_offset=0), "L1 table"),
        (head(l1_offset=2**63), "L1 table"),
        (head(l1_entries=2**32 - 1), "L1 table"),
        (head(refcount_offset=FILE), "refcount table"),
        (head(refcount_clusters=2**32 - 1), "refcount table"),
        (head(header_length=96), "header"),
        (head(header_length=2**32 - 8), "header"),
        (head(b"\1", header_length=120), "not known"),
        (head(incompatible=8), "compression type 0"),
        (head(compression=1), "compression type 1"),
        (head(incompatible=8, compression=2), "compression type 2"),
        (head(extension(0xE2792ACA, b"raw")), "format of a backing file"),
        (head(extension(0x44415441, b"/etc/shadow")), "external data file"),
        (head(extension(0x23852875, bytes(24))), "bitmaps"),
        (head(extension(0x0537BE77, bytes(16))), "encryption"),
        (head(extension(0x6803F857, bytes(48)) + extension(0x44415441, b"x")), "external data file"),
        (head(extension(0x12345678, b"")), "0x12345678"),
        (head(struct.pack(">II", 0x6803F857, 2**32 - 1)), "do not end"),
    ],
)
def test_everything_else_is_refused(made: bytes, because: str) -> None:
    with pytest.raises(HeaderRefused, match=because.replace("^", r"\^")):
        check_header(made, FILE, SIZE)


numbers = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 8, 9, 16, 2**31, 2**32 - 1, 2**63, 2**64 - 1]), st.integers(0, 2**64)
)
edits = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(sorted(_FIELDS.values())), numbers),
        st.tuples(st.tuples(st.integers(104, 600), st.sampled_from([1, 4, 8])), numbers),
    ),
    min_size=1,
    max_size=4,
)


def edited(made: bytes, changes: list[tuple[tuple[int, int], int]]) -> bytes:
    result = bytearray(made)
    for (at, length), value in changes:
        result[at : at + length] = (value % 256**length).to_bytes(length, "big")
    return bytes(result[: len(made)])


@given(changes=edits, length=st.one_of(st.just(READ_BYTES), st.integers(0, 700)), file_size=st.integers(0, 2**40))
@settings(max_examples=500)
def test_no_bytes_make_another_error_than_ours(
    changes: list[tuple[tuple[int, int], int]], length: int, file_size: int
) -> None:
    made = edited(head(), changes)[:length]
    with contextlib.suppress(HeaderRefused):
        check_header(made, file_size, None)
        assert made[:8] == b"QFI\xfb\0\0\0\3" and not any(made[8:20]) and not any(made[32:36]) and not any(made[60:64])


@given(st.binary(max_size=2000))
def test_random_bytes_are_refused(made: bytes) -> None:
    with pytest.raises(HeaderRefused):
        check_header(made, len(made), None)
    with pytest.raises(HeaderRefused):
        check_header(b"QFI\xfb\0\0\0\3" + made, 2**40, None)


def _info(path: Path) -> dict[str, Any] | None:
    done = subprocess.run(
        ["qemu-img", "info", "-f", "qcow2", "--output=json", str(path)], capture_output=True, check=False
    )
    found: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return found


def _created(path: Path, size: int, cluster: int, compression: str) -> bytes:
    options = f"cluster_size={cluster},compression_type={compression}"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), str(size)], check=True)
    return path.read_bytes()


@with_qemu_img
@pytest.mark.parametrize("compression", ["zlib", "zstd"])
@pytest.mark.parametrize("cluster", [512, 4096, 65536, 2 * 1024**2])
@pytest.mark.parametrize("size", [0, 1, 512, 10**6, 2**30, 2**36])
def test_real_files_of_each_kind_are_accepted(tmp_path: Path, size: int, cluster: int, compression: str) -> None:
    made = _created(tmp_path / "a.qcow2", size, cluster, compression)
    check_header(made[:READ_BYTES], len(made), size)


@with_qemu_img
@pytest.mark.parametrize(("cluster", "compression"), [(512, "zlib"), (65536, "zstd")])
def test_what_is_accepted_stands_alone_for_qemu_img_too(
    tmp_path_factory: pytest.TempPathFactory, cluster: int, compression: str
) -> None:
    """Mutations of real files; qemu-img may refuse more, but must not find another file in what is accepted."""
    path = tmp_path_factory.mktemp("mutated") / "a.qcow2"
    real = _created(path, 10**6, cluster, compression)
    accepted = []

    @given(edits)
    @settings(max_examples=150)
    def mutate(changes: list[tuple[tuple[int, int], int]]) -> None:
        made = edited(real, changes)
        try:
            check_header(made[:READ_BYTES], len(made), None)
        except HeaderRefused:
            return
        path.write_bytes(made)
        found = _info(path)
        if found is not None:
            accepted.append(found)
            more = found.get("format-specific", {}).get("data", {})
            assert not {"backing-filename", "full-backing-filename", "snapshots"} & set(found), found
            assert not found.get("encrypted") and not {"data-file", "bitmaps", "encrypt"} & set(more), found

    mutate()
    assert accepted


@with_qemu_img
@pytest.mark.parametrize("cluster", [512, 4096, 65536, 2 * 1024**2])
@pytest.mark.parametrize("size", [0, 1, 10**6, 10**8, 10**11, 2**45])
def test_no_qcow2_is_longer_than_the_longest(size: int, cluster: int) -> None:
    options = ["--output=json", "-O", "qcow2", "-o", f"cluster_size={cluster}", "--size", str(size)]
    done = subprocess.run(["qemu-img", "measure", *options], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("qemu-img makes no such file")
    fully = json.loads(done.stdout)["fully-allocated"]
    assert fully <= longest_file(size, cluster) <= 1.1 * fully + 64 * cluster + 4 * 1024**2 + 20 * cluster
