"""How both ends set up RPyC: by-value types only, every right off, messages of bounded size, one class of error.

RPyC by itself raises here what the other side names (SystemExit too), answers DIR, STR and INSPECT, inflates any
message, and waits without end for the rest of one: https://github.com/tomerfiliba-org/rpyc, rpyc/core/protocol.py.
"""

from __future__ import annotations

import socket
import time
import zlib
from typing import Any, NoReturn

import rpyc
from rpyc.core import consts, netref, vinegar
from rpyc.core.channel import Channel
from rpyc.core.stream import SocketStream

CALL_SECONDS = 30
"""How long a caller waits for the answer to one call; long work is a job that is polled. A message takes no longer."""

MAX_ANSWER = 64 * 1024**2
"""Bytes of a message to the controller: a listing of 100,000 images fits."""

MAX_REQUEST = 16 * 1024**2
"""Bytes of a message to the agent: the names of 100,000 images fit."""

PROTOCOL_CONFIG: dict[str, Any] = {
    "allow_all_attrs": False,
    "allow_public_attrs": False,
    "allow_exposed_attrs": False,
    "allow_safe_attrs": False,
    "allow_getattr": False,
    "allow_setattr": False,
    "allow_delattr": False,
    "allow_pickle": False,
    "import_custom_exceptions": False,
    "instantiate_custom_exceptions": False,
    "instantiate_oldstyle_exceptions": False,
    "include_local_traceback": False,
    "include_local_version": False,
    "propagate_SystemExit_locally": False,
    "propagate_KeyboardInterrupt_locally": False,
    "log_exceptions": False,
    "close_catchall": True,
    "sync_request_timeout": CALL_SECONDS,
}

_MAX_KIND = 100
_CHUNK = 64000


class RaisedThere(Exception):
    """The other side raised something: ``kind`` is the name that it gave, and nothing else is kept of it."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class _BoundedChannel(Channel):  # type: ignore[misc]
    """Sends without compression; what comes is bounded in size, before and after decompression, and in time."""

    __slots__ = ("_limit", "_seconds")

    def __init__(self, stream: SocketStream, limit: int, seconds: float) -> None:
        super().__init__(stream, compress=False)
        self._limit, self._seconds = limit, seconds

    def recv(self) -> bytes:
        """The next message. Raises: EOFError, after which the connection is closed."""
        deadline = time.monotonic() + self._seconds
        length, compressed = self.FRAME_HEADER.unpack(self._read(self.FRAME_HEADER.size, deadline))
        if length > self._limit:
            self._refuse(f"a message of {length} bytes, which is more than {self._limit}")
        data = bytes(self._read(length + len(self.FLUSHER), deadline)[:length])
        return self._inflated(data) if compressed else data

    def _read(self, count: int, deadline: float) -> bytearray:
        data = bytearray()
        while len(data) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                self._refuse(f"a message that did not end within {self._seconds:g} s")
            try:
                self.stream.sock.settimeout(left)
                chunk = self.stream.sock.recv(min(_CHUNK, count - len(data)))
            except socket.timeout:  # noqa: UP041 - only from Python 3.10 on it is TimeoutError
                continue
            except OSError as error:
                self._refuse(str(error))
            if not chunk:
                self._refuse("closed by the other side")
            data += chunk
        return data

    def _inflated(self, data: bytes) -> bytes:
        inflating = zlib.decompressobj()
        try:
            found = inflating.decompress(data, self._limit)
        except zlib.error as error:
            self._refuse(f"a damaged message ({error})")
        if inflating.unconsumed_tail:
            self._refuse(f"a compressed message of more than {self._limit} bytes")
        return found

    def _refuse(self, reason: str) -> NoReturn:
        self.stream.close()
        raise EOFError(reason)


class _ToAgent(rpyc.Connection):  # type: ignore[misc]
    """The controller's end: it only asks. Objects of the other side stay empty names, whatever it says of them."""

    def __init__(self, root: rpyc.Service, channel: Channel, config: dict[str, Any]) -> None:
        bounded = _BoundedChannel(channel.stream, MAX_ANSWER, config["sync_request_timeout"])
        super().__init__(root, bounded, config)

    def _dispatch_request(self, _seq: object, request: object) -> None:
        if isinstance(request, tuple) and request and request[0] == consts.HANDLE_CLOSE:
            self._cleanup()
        else:
            raise EOFError("it asks something, and may only answer")

    def _netref_factory(self, id_pack: object) -> Any:
        return netref.BaseNetref(self, id_pack)

    def _unbox_exc(self, raw: object) -> RaisedThere:
        try:
            kind = raw[0][1]  # type: ignore[index]
        except (TypeError, IndexError):
            kind = None
        return RaisedThere(kind[:_MAX_KIND] if isinstance(kind, str) else "something")

    def end(self, seconds: float) -> None:
        """Close; wait at most so long until the other side has cleaned up."""
        self._config["sync_request_timeout"] = seconds
        self.close()


class _Asking(rpyc.VoidService):  # type: ignore[misc]
    _protocol = _ToAgent


def connected(address: str, seconds: float) -> Any:
    """A connection to the agent at unix socket ``address``, on which each answer may take so long. Raises: OSError."""
    stream = SocketStream.unix_connect(address, timeout=min(seconds, 3))
    config = {**PROTOCOL_CONFIG, "sync_request_timeout": seconds}
    return _Asking._connect(Channel(stream), config)


class ServedConnection(rpyc.Connection):  # type: ignore[misc]
    """The agent's end: a client can call what the service's ``_rpyc_getattr`` names, and learns nothing else."""

    _OPEN = (
        consts.HANDLE_PING,
        consts.HANDLE_CLOSE,
        consts.HANDLE_GETROOT,
        consts.HANDLE_GETATTR,
        consts.HANDLE_CALL,
        consts.HANDLE_CALLATTR,
        consts.HANDLE_DEL,
    )

    def __init__(self, root: rpyc.Service, channel: Channel, config: dict[str, Any]) -> None:
        super().__init__(root, _BoundedChannel(channel.stream, MAX_REQUEST, CALL_SECONDS), config)

    @classmethod
    def _request_handlers(cls) -> dict[int, Any]:
        every = super()._request_handlers()
        handlers = {code: every[code] if code in cls._OPEN else _refused for code in every}
        return {**handlers, consts.HANDLE_INSPECT: _callable}

    def _netref_factory(self, _id_pack: object) -> NoReturn:
        raise AttributeError("objects of the client are not taken")

    def _dispatch(self, data: bytes) -> None:
        try:
            super()._dispatch(data)
        except (EOFError, OSError):
            raise
        except Exception as error:
            self._channel.close()  # or RPyC would wait until the other side agrees to the end
            raise EOFError(f"a message that can't be read ({type(error).__name__})") from None

    def _box_exc(self, _kind: object, _error: object, _traceback: object) -> object:
        """Errors of calls are answers; what RPyC itself raises is told without its text."""
        refused = AttributeError("refused")
        return vinegar.dump(AttributeError, refused, None, include_local_traceback=False, include_local_version=False)

    def _unbox_exc(self, _raw: object) -> RaisedThere:
        return RaisedThere("something")


def _refused(*_arguments: object) -> NoReturn:
    raise AttributeError


def _callable(*_arguments: object) -> tuple[tuple[str, str], ...]:
    """What RPyC's clients must hear of an object before they use it; the same of every one, and so nothing."""
    return (("__call__", ""),)
