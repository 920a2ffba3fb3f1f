"""How the commands that read backups begin."""

from __future__ import annotations

import argparse

from ceph_rsnapshot.api import load_settings
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.console import logs


def begin(arguments: argparse.Namespace) -> Settings:
    """The settings of the configuration file; the log goes to the terminal from now on."""
    settings = load_settings(arguments.config)
    logs.set_up(settings.verbose, settings.sh_logging, quiet=True)
    return settings
