"""qcow2 files through qemu-img, on either node."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Callable

from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands, image_file
from ceph_rsnapshot_common.progress import Progress
from ceph_rsnapshot_common.protocol.records import QcowOptions

_COROUTINES = "16"
_PERCENT = re.compile(r"\((\d+\.\d+)/100%\)")


def create_options(qcow: QcowOptions) -> list[str]:
    """Arguments of qemu-img create and convert for a new file."""
    compressed = [] if qcow.compression == "none" else [f"compression_type={qcow.compression}"]
    return ["-o", ",".join([f"cluster_size={qcow.cluster_size}", *compressed])]


def convert(
    source: str,
    target: str,
    options: Sequence[str],
    node: Node,
    *,
    progress: Progress,
    stage: str,
    total: int,
    pass_fds: Sequence[int] = (),
    idle: float | None = None,
    waiting: Callable[[], None] | None = None,
    cancelled: threading.Event | None = None,
) -> None:
    """`qemu-img convert` with its progress; zeros are not written where they need not be.

    Args:
        source: an NBD server, or the name of an `image_file.ImageFile`.
        options: formats (that of a file as source is in its name) and whatever else the target needs; ``-c`` if it is
            to be compressed.
        progress: is told how many of the ``total`` bytes of this ``stage`` are done.
        pass_fds: those of that `image_file.ImageFile`.
        idle, waiting, cancelled: see `commands.run`.

    Raises:
        CommandFailed: reading or writing failed.
        Cancelled: ``cancelled`` was set.
    """

    def tell(text: str) -> None:
        if percents := _PERCENT.findall(text):
            progress(stage, int(total * (float(percents[-1]) / 100)), total)

    progress(stage, 0, total)
    # with -c, -W is accepted and makes a wrong file
    order = [] if "-c" in options else ["-W"]
    argv = [commands.find_tool("qemu-img", node), "convert", "-p", *order, "-m", _COROUTINES, *options, source, target]
    argv = commands.dying_with_parent(argv, node)
    commands.run(argv, on_stdout=tell, pass_fds=pass_fds, idle=idle, waiting=waiting, cancelled=cancelled)


def measure(
    source: str, options: Sequence[str], node: Node, cancelled: threading.Event, idle: float | None = None
) -> int:
    """Bytes that `convert` with these ``options`` will need at most. Raises: CommandFailed, Cancelled."""
    argv = [commands.find_tool("qemu-img", node), "measure", "--output=json", *options, source]
    answer = commands.run(commands.dying_with_parent(argv, node), cancelled=cancelled, idle=idle)
    return int(json.loads(answer.stdout)["required"])


def check(path: Path, node: Node, size: int | None = None, idle: float | None = None) -> None:
    """See that the metadata are sound (`qemu-img check` says nothing of contents).

    Args:
        size: bytes of the image that it should hold; None: any.

    Raises:
        CommandFailed: they are not; leaked clusters count too.
        Qcow2Refused: it does not stand for itself.
    """
    with image_file.opened(path, size=size) as file:
        argv = [commands.find_tool("qemu-img", node), "check", "-q", file.name]
        commands.run(argv, pass_fds=file.pass_fds, idle=idle)


def finish(partial: Path, path: Path, node: Node, idle: float | None = None) -> None:
    """Only a checked file gets the final name. Making it last is the caller's, if it is to last.

    Raises:
        CommandFailed: `qemu-img check` found errors.
    """
    check(partial, node, idle=idle)
    # rsync takes files of equal size and time for equal (https://download.samba.org/pub/rsync/rsync.1, "quick check"):
    # no two exports may share a time
    now = time.time_ns()
    os.utime(partial, ns=(now, now))
    partial.rename(path)


def qemu_version(node: Node) -> str:
    """Such as ``7.2.22``. Raises: ToolMissing, CommandFailed."""
    tool = commands.find_tool("qemu-img", node)
    return _version(tool, Path(tool).stat().st_mtime_ns)


@lru_cache(1)  # asked for each image; anew when qemu was upgraded, because an agent lives for months
def _version(tool: str, _modified: int) -> str:
    first_line = commands.run([tool, "--version"]).stdout.split("\n")[0]
    match = re.search(r"version (\S+)", first_line)
    return match.group(1) if match else first_line
