"""qcow2 files through qemu-img, on either node."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Callable

from ceph_rsnapshot_common import commands
from ceph_rsnapshot_common.records import QcowOptions

_PERCENT = re.compile(r"\((\d+\.\d+)/100%\)")


def create_options(qcow: QcowOptions) -> list[str]:
    """Arguments of qemu-img create and convert for a new file."""
    compressed = [] if qcow.compression == "none" else [f"compression_type={qcow.compression}"]
    return ["-o", ",".join([f"cluster_size={qcow.cluster_size}", *compressed])]


def reading_progress(progress: Callable[[float], None]) -> Callable[[str], None]:
    """What takes the output of `qemu-img convert -p`; ``progress`` gets the share that is done, from 0 to 1."""

    def read(text: str) -> None:
        percents = _PERCENT.findall(text)
        if percents:
            progress(float(percents[-1]) / 100)

    return read


def check(path: Path, node: str, pass_fds: Sequence[int] = ()) -> None:
    """See that the metadata are sound (`qemu-img check` says nothing of contents).

    Raises:
        CommandFailed: they are not; leaked clusters count too.
    """
    commands.run([commands.find_tool("qemu-img", node), "check", "-q", "-f", "qcow2", str(path)], pass_fds=pass_fds)


def finish(partial: Path, path: Path, node: str) -> None:
    """Only a checked file gets the final name. Making it last is the caller's, if it is to last.

    Raises:
        CommandFailed: `qemu-img check` found errors.
    """
    check(partial, node)
    # rsync takes files of equal size and time for equal: no two exports may share a time
    now = time.time_ns()
    os.utime(partial, ns=(now, now))
    partial.rename(path)


@cache  # asked for each image
def qemu_version(node: str) -> str:
    """Such as ``7.2.22``."""
    first_line = commands.run([commands.find_tool("qemu-img", node), "--version"]).stdout.split("\n")[0]
    match = re.search(r"version (\S+)", first_line)
    return match.group(1) if match else first_line
