"""What all tests begin with."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# nohup(1) ignores the one and `&` of a shell the other, also in all children; tests close terminals and press Ctrl-C
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
# every one of some thousand commands would compile all its modules
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# a busy machine is no failure
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
