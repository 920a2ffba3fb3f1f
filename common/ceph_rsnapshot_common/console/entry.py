"""How every command of this program begins and ends: signals, errors as one line, exit codes."""

from __future__ import annotations

import os
import signal
import sys
from typing import Callable, NoReturn

from ceph_rsnapshot_common.errors import CephRsnapshotError
from ceph_rsnapshot_common.printable import printable
from ceph_rsnapshot_common.process.interrupts import SIGNALS


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM, or a terminal that was closed; a KeyboardInterrupt, so that no handler of errors swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum  # https://www.gnu.org/software/bash/manual/bash.html#Exit-Status


def exit_with(main: Callable[[], int], prog: str) -> NoReturn:
    """Run ``main`` and leave the process with its exit code, or with that of the error that it ended with.

    The first SIGINT, SIGTERM or SIGHUP raises `Interrupted`; while the clean-up runs, later ones are ignored.
    """
    for signum in SIGNALS:
        if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:  # nohup(1)
            signal.signal(signum, _interrupt)
    sys.exit(_exit_code(main, prog))


def _exit_code(main: Callable[[], int], prog: str) -> int:
    """The one place where it is decided: 0 only if ``main`` came to its end and said so."""
    try:
        code = main()
        sys.stdout.flush()
        return code
    except CephRsnapshotError as error:
        print(f"{prog}: error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except Interrupted as error:
        print(f"{prog}: ended by {error}; what was under way was cleaned up", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # the reader of our output has gone: write no more, not even in the interpreter's last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"{prog}: error: {printable(str(error))}", file=sys.stderr)
        return 1


def _interrupt(signum: int, _frame: object) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(signum)
