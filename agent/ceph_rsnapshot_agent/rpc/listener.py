"""Accepts connections, each served in a thread of its own; goes on whatever they do, until it is told to end.

RPyC's own server ends without a word when it can't accept one (EMFILE), and misses a signal that comes just before it
waits (https://github.com/tomerfiliba-org/rpyc/blob/master/rpyc/utils/server.py).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rpyc
from rpyc.core.stream import SocketStream

from ceph_rsnapshot_agent.rpc.service import AgentService, Sessions
from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import PathNotUsable, one_line
from ceph_rsnapshot_common.process.interrupts import SIGNALS
from ceph_rsnapshot_common.protocol.wire import PROTOCOL_CONFIG

_TICK_SECONDS = 1.0
_BREATH_SECONDS = 0.1
_MORE_TO_REFUSE = 32
"""Connections over MAX_CONNECTIONS that are kept for so long as it takes to tell them so."""
_SHOWN = 200

# https://man7.org/linux/man-pages/man2/accept.2.html
_THIS_ONE_ONLY = frozenset((errno.EAGAIN, errno.EINTR, errno.ECONNABORTED, errno.EPROTO, errno.EPERM))
_FOR_NOW = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Client:
    """A connection; `service` is there as soon as its thread runs."""

    socket: socket.socket
    since: float = field(default_factory=time.monotonic)
    service: AgentService | None = None

    @property
    def silent(self) -> bool:
        """Whether it has not said hello (or was refused)."""
        return self.service is None or not self.service.greeted

    def hang_up(self) -> None:
        """Its thread then ends the session; a lock that this needs may be held by whoever calls."""
        with contextlib.suppress(OSError):  # the other side was faster
            self.socket.shutdown(socket.SHUT_RDWR)


class Listener:
    """A unix socket that only this user can connect to. `opened` makes one; `run` serves it."""

    def __init__(self, listening: socket.socket, wakeup: int, settings: Settings, sessions: Sessions) -> None:
        self._socket, self._wakeup, self._settings, self._sessions = listening, wakeup, settings, sessions
        self._clients: set[_Client] = set()
        self._lock = threading.Lock()
        self._ended_by: signal.Signals | None = None
        self._troubled = False

    def run(self) -> None:
        """Until a signal comes that ends the agent.

        Raises:
            OSError: the socket can't be used any more.
        """
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(self._wakeup, select.POLLIN)
        while self._ended_by is None:
            ready = dict(poller.poll(_TICK_SECONDS * 1000))
            if self._wakeup in ready:
                os.read(self._wakeup, select.PIPE_BUF)
            if self._ended_by is None and (events := ready.get(self._socket.fileno(), 0)):
                self._accept(events)
            self._hang_up_silent()
        _logger.info("ending because of %s", self._ended_by.name)

    def end(self, signum: int, _frame: object) -> None:
        """A handler of signals."""
        self._ended_by = signal.Signals(signum)

    def hang_up(self) -> None:
        """End all connections."""
        with self._lock:
            for client in self._clients:
                client.hang_up()

    def _accept(self, events: int) -> None:
        if events & ~select.POLLIN:
            raise OSError(errno.EBADF, "nothing can be accepted there any more")
        try:
            accepted, _ = self._socket.accept()
        except OSError as error:
            if error.errno in _FOR_NOW:
                self._trouble(f"no connection can be accepted: {error.strerror}")
                time.sleep(_BREATH_SECONDS)
            elif error.errno not in _THIS_ONE_ONLY:
                raise
            return
        with self._lock:
            full = len(self._clients) >= self._settings.max_connections + _MORE_TO_REFUSE
        if full:
            self._trouble(f"connections are closed unheard: many more than MAX_CONNECTIONS ({len(self._clients)})")
            accepted.close()
            return
        self._troubled = False
        self._begin(_Client(accepted))

    def _begin(self, client: _Client) -> None:
        with self._lock:
            self._clients.add(client)
        try:
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()
        except RuntimeError as error:
            self._trouble(f"a connection is closed unheard: {error}")
            self._forget(client)

    def _trouble(self, what: str) -> None:
        """Said once, until all is well again."""
        if not self._troubled:
            _logger.error("%s", what)
        self._troubled = True

    def _hang_up_silent(self) -> None:
        latest = time.monotonic() - self._settings.hello_timeout
        with self._lock:
            for client in self._clients:
                if client.since < latest and client.silent:
                    client.hang_up()

    def _serve(self, client: _Client) -> None:
        try:
            client.service = AgentService(self._sessions)
            rpyc.connect_stream(SocketStream(client.socket), client.service, _rpyc_config()).serve_all()
        except (EOFError, OSError):
            pass  # the other side has left
        except Exception as error:
            _logger.warning("a connection was ended: %s", one_line(str(error))[:_SHOWN])
        finally:
            self._forget(client)

    def _forget(self, client: _Client) -> None:
        client.socket.close()
        with self._lock:
            self._clients.discard(client)


@contextmanager
def opened(address: Path, settings: Settings, sessions: Sessions) -> Iterator[Listener]:
    """Listen at ``address`` from now on, and end at SIGTERM, SIGINT and SIGHUP; only for the main thread.

    Raises:
        PathNotUsable: the socket can't be made there.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        try:
            listening.bind(str(address))
            stack.callback(address.unlink, missing_ok=True)
            address.chmod(0o600)  # before it listens
            listening.setblocking(False)
            listening.listen(socket.SOMAXCONN)
        except OSError as error:
            raise PathNotUsable(key="AGENT_SOCKET", path=address, reason=error) from None
        listener = Listener(listening, stack.enter_context(_woken_by_signals()), settings, sessions)
        stack.callback(listener.hang_up)
        stack.enter_context(_handling(listener))
        yield listener


@contextmanager
def _woken_by_signals() -> Iterator[int]:
    """A descriptor that is readable after a signal: also after one that comes just before somebody waits."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


@contextmanager
def _handling(listener: Listener) -> Iterator[None]:
    before = {signum: signal.signal(signum, listener.end) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _rpyc_config() -> dict[str, Any]:
    logger = logging.getLogger(f"{__name__}.rpyc")
    logger.setLevel(logging.WARNING)
    return {**PROTOCOL_CONFIG, "logger": logger}
