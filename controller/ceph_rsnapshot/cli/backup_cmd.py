"""``ceph_rsnapshot backup``, also the default without a command."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TextIO

from ceph_rsnapshot.api import backup, load_settings
from ceph_rsnapshot.archiver.observer import Observer
from ceph_rsnapshot.archiver.report import report_of_error
from ceph_rsnapshot.cli.output import lines
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.console import logs
from ceph_rsnapshot_common.console.flags import options_given
from ceph_rsnapshot_common.errors import CephRsnapshotError

_logger = logging.getLogger(__name__)


def run(arguments: argparse.Namespace) -> int:
    """Back up; with --printsettings only print the settings."""
    given = vars(arguments)
    if given.get("printsettings"):
        from ceph_rsnapshot.cli import settings_cmd

        return settings_cmd.run(arguments)
    return _backup(load_settings(arguments.config, **options_given(arguments)), given)


def _backup(settings: Settings, given: dict[str, object]) -> int:
    os.umask(0o077)
    file = None if settings.noop else settings.log_base_path / settings.log_filename
    logs.set_up(settings.verbose, settings.sh_logging, file, quiet=True)
    as_json = bool(given.get("json"))
    try:
        report = backup(
            settings,
            force=bool(given.get("force")),
            full=bool(given.get("full")),
            rotate_many_orphans=bool(given.get("rotate_many_orphans")),
            observer=_observer(sys.stderr),
        )
    except (CephRsnapshotError, KeyboardInterrupt) as error:
        # for the log; the terminal gets it when the command ends
        _logger.warning("the run ended early: %s", error)
        if as_json and isinstance(error, CephRsnapshotError):
            print(report_of_error(settings.ceph_host, error).model_dump_json(indent=2))
        raise
    lines.log_report(report)
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        from ceph_rsnapshot.cli.output.screen import print_report

        print_report(report)
    return report.exit_code


def _observer(stream: TextIO | None) -> Observer:
    """Progress bars if ``stream`` is a terminal, else a line for each image; nothing if it was closed."""
    if stream is None:
        return Observer()
    if stream.isatty():
        from ceph_rsnapshot.cli.output.screen import Bars  # rich, which nothing else needs before the run has ended

        return Bars(stream)
    return lines.Lines(stream)
