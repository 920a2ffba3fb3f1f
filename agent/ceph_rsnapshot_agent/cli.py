"""The commands of the ceph node: the agent itself, and the same work by hand without it."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable, NoReturn

from ceph_rsnapshot_agent import ssh_command
from ceph_rsnapshot_agent.ceph.cluster import Cluster, bindings, connect
from ceph_rsnapshot_agent.ceph.listing import list_images
from ceph_rsnapshot_agent.rpc.session import remove_unclaimed
from ceph_rsnapshot_agent.staging.claims import claim
from ceph_rsnapshot_agent.staging.export import export
from ceph_rsnapshot_common.config.load import load
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.config.snapshot_name import snapshot_name
from ceph_rsnapshot_common.console import logs
from ceph_rsnapshot_common.console.entry import exit_with
from ceph_rsnapshot_common.console.flags import add_config, make_parser, options_given
from ceph_rsnapshot_common.errors import ImageMissing, SnapshotMissing, UsageError, from_record
from ceph_rsnapshot_common.names import Pool, did_you_mean, parse_image
from ceph_rsnapshot_common.printable import printable
from ceph_rsnapshot_common.progress import Progress, unwatched
from ceph_rsnapshot_common.protocol.records import ExportRequest, Image, Listing, QcowOptions
from ceph_rsnapshot_common.sizes import format_size


def agent() -> NoReturn:
    """Console script ``ceph_rsnapshot_agent``."""
    parser = make_parser(
        "ceph_rsnapshot_agent",
        "The agent on the ceph node: serves the controller on a unix socket until SIGTERM or Ctrl-C.",
        "example:\n  ceph_rsnapshot_agent -c /etc/ceph-rsnapshot/ceph_rsnapshot.yaml",
        ["verbose"],
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    text = "for sshd: all that the backup node's ssh key may run (ForceCommand in docs/installation.md)"
    add_config(commands.add_parser("ssh-command", help=text, description=text), argparse.SUPPRESS)
    exit_with(lambda: _agent(parser.parse_args()), parser.prog)


def _agent(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, options_given(arguments)).settings
    if arguments.command:
        ssh_command.run(settings, os.environ.get("SSH_ORIGINAL_COMMAND", ""))
        return 0
    from ceph_rsnapshot_agent.rpc import server  # RPyC is not needed for a command of ssh

    os.umask(0o077)
    logs.set_up(settings.verbose, settings.sh_logging)
    for module in ("rados", "rbd"):
        bindings(module)  # better to fail now than at night
    server.serve(settings)
    return 0


def gathernames() -> NoReturn:
    """Console script ``gathernames``."""
    parser = make_parser(
        "gathernames",
        "Print the names of the images that have the snapshot of the day, one a line (with several pools: "
        "pool/image). Images without it are named on standard error.",
        "examples:\n  gathernames\n  gathernames -p rbd --snap-date yesterday\n  gathernames --json",
        ["pool", "image_re", "snap_date", "verbose"],
    )
    parser.add_argument("--json", action="store_true", help="print all that is known of the pools as one JSON document")
    exit_with(lambda: _gathernames(parser.parse_args()), parser.prog)


def _gathernames(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    with connect(settings) as cluster:
        name = snapshot_name(settings)
        chooses = re.compile(settings.image_re).match
        listings = [_list(cluster, settings, pool, name, chooses) for pool in settings.pool]
    if arguments.json:
        print(json.dumps([listing.model_dump(mode="json") for listing in listings], indent=2))
    else:
        for listing in listings:
            _print_names(listing, full=len(listings) > 1)
    return 1 if any(image.error for listing in listings for image in listing.images) else 0


def _print_names(listing: Listing, full: bool) -> None:
    for image in listing.images:
        if image.error:
            print(f"gathernames: error: {printable(image.error.message)}", file=sys.stderr)
        elif image.snapshot:
            print(printable(f"{listing.pool}/{image.name}" if full else image.name))
        else:
            newest = image.newest.name if image.newest else "none"
            said = f"{listing.pool}/{image.name}: no {listing.snapshot_name} (newest: {newest})"
            print(printable(said), file=sys.stderr)


def export_qcow() -> NoReturn:
    """Console script ``export_qcow``."""
    parser = make_parser(
        "export_qcow",
        "Export the snapshot of the day of an image to a qcow2 file under QCOW_TEMP_PATH, and print its path.",
        "examples:\n  export_qcow vm-1\n  export_qcow rbd/vm-1@2016-10-04\n  export_qcow -p pool/namespace -- -odd",
        ["pool", "snap_date", "verbose"],
    )
    parser.add_argument(
        "image", metavar="IMAGE", help="image, pool/image or pool/namespace/image; @SNAPSHOT may follow"
    )
    exit_with(lambda: _export_qcow(parser.parse_args()), parser.prog)


def _export_qcow(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    os.umask(0o077)
    pool, image, snapshot = _named(arguments.image, settings)
    with connect(settings) as cluster:
        request = _find(cluster, settings, pool, image, snapshot or snapshot_name(settings))
        qcow = QcowOptions(cluster_size=settings.qcow_cluster_size, compression=settings.qcow_compression)
        request = request.model_copy(update={"fast_diff": settings.fast_diff, "qcow": qcow})
        with claim(settings.qcow_temp_path, pool, image) as files:
            with _terminal_progress() as progress:
                export(cluster, settings, request, files, progress, threading.Event())
            print(files.qcow)
    return 0


def remove_qcow() -> NoReturn:
    """Console script ``remove_qcow``."""
    parser = make_parser(
        "remove_qcow",
        "Remove the temporary qcow2 of an image from QCOW_TEMP_PATH.",
        "example:\n  remove_qcow vm-1",
        ["pool", "verbose"],
    )
    parser.add_argument("image", metavar="IMAGE", help="[pool/[namespace/]]image")
    exit_with(lambda: _remove_qcow(parser.parse_args()), parser.prog)


def _remove_qcow(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    pool, image, _ = _named(arguments.image, settings)
    if not remove_unclaimed(settings, pool, image):
        print(f"remove_qcow: there was no temporary qcow2 of {pool}/{printable(image)}", file=sys.stderr)
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    settings = load(arguments.config, options_given(arguments)).settings
    logs.set_up(settings.verbose, settings.sh_logging, quiet=not settings.sh_logging)
    return settings


def _named(text: str, settings: Settings) -> tuple[Pool, str, str]:
    """Pool, image and snapshot (or nothing) of ``[pool/[namespace/]]image[@snapshot]``."""
    try:
        pool, image, snapshot = parse_image(text)
    except ValueError as error:
        raise UsageError(path="IMAGE", problems=error) from None
    if not image:
        raise UsageError(path="IMAGE", problems=f"{text!r} names no image")
    if not pool and len(settings.pool) > 1:
        reason = f"several pools are configured: name one, as {settings.pool[0]}/{image}"
        raise UsageError(path="IMAGE", problems=reason)
    return pool or settings.pool[0], image, snapshot


def _list(cluster: Cluster, settings: Settings, pool: Pool, snapshot: str, chooses: Callable[[str], object]) -> Listing:
    return list_images(cluster, settings, pool, snapshot, chooses, unwatched, threading.Event())


def _find(cluster: Cluster, settings: Settings, pool: Pool, name: str, snapshot: str) -> ExportRequest:
    listing = _list(cluster, settings, pool, snapshot, name.__eq__)
    image = next(iter(listing.images), None)
    if image is None:
        raise ImageMissing(pool=pool, image=name, hint=did_you_mean(name, listing.names))
    return _request(pool, image, snapshot)


def _request(pool: Pool, image: Image, snapshot: str) -> ExportRequest:
    if image.error:
        raise from_record(image.error)
    if not image.snapshot:
        newest = image.newest.name if image.newest else "none"
        raise SnapshotMissing(pool=pool, image=image.name, snapshot=snapshot, newest=newest)
    return ExportRequest(
        pool=pool, image=image.name, image_id=image.id, snapshot=snapshot, snapshot_id=image.snapshot.id
    )


@contextmanager
def _terminal_progress() -> Iterator[Progress]:
    """One line on standard error that is overwritten, on a terminal only; it is cleared at the end."""
    if not sys.stderr.isatty():
        yield unwatched
        return

    def show(stage: str, done: int = 0, total: int = 0) -> None:
        amount = f" {format_size(done)} of {format_size(total)}" if total else ""
        print(f"\r\033[K{stage}{amount}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
