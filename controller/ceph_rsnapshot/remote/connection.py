"""The connection of one command to the agent: opened when it is needed, and again after it broke."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from ceph_rsnapshot.remote.link import Link, connecting
from ceph_rsnapshot_common.config.settings import Settings

if TYPE_CHECKING:
    from ceph_rsnapshot.remote.client import AgentClient


class AgentConnection:
    """A client that is opened at first use, and again after it broke. Close it through the context manager."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._stack = ExitStack()
        self._link: Callable[[], Link] | None = None
        self._client: AgentClient | None = None

    def __enter__(self) -> AgentConnection:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    @property
    def alive(self) -> AgentClient | None:
        """The client if its connection is open now; opens none."""
        return self._client if self._client and self._client.alive else None

    def begin(self) -> None:
        """Let ssh connect while something else is done."""
        self._link = self._stack.enter_context(connecting(self._settings, self._folder))

    def client(self) -> AgentClient:
        """The client, connected.

        Raises:
            AgentUnreachable, VersionMismatch: no connection.
            ToolMissing: on the ceph node.
        """
        from ceph_rsnapshot.remote.client import AgentClient  # while ssh connects

        if self.alive:
            return self.alive
        if self._link is None:
            self._stack.close()
            self.begin()
        assert self._link
        link, self._link, self._client = self._link, None, None
        self._client = self._stack.enter_context(AgentClient(link()))
        return self._client
