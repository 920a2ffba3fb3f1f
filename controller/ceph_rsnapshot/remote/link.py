"""The way to the agent: its unix socket on this machine, or that socket forwarded by one shared ssh connection."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable

from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import AgentUnreachable, CommandFailed
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands, servers
from ceph_rsnapshot_common.process.commands import find_tool

_CONNECT_SECONDS = 60.0
_CANCEL_SECONDS = 2.0
# ssh never asks (nobody is there at night), notices a dead peer, and does not leave a master behind
_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=30",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "ExitOnForwardFailure=yes",
    "ControlPersist=no",
    # with the AES instructions of any current processor several times as fast as ssh's default, ChaCha20
    "Ciphers=^aes128-gcm@openssh.com",
)


def _sending_at_once(ssh_args: Sequence[str], host: str, log: Path) -> AbstractContextManager[object]:
    """Run any command there, whatever becomes of it: only then sshd turns off Nagle's algorithm for the connection.

    Otherwise each small answer that follows another waits up to 40 ms for a delayed acknowledgement (tcp(7),
    TCP_NODELAY; sshd calls ssh_packet_set_interactive in do_exec only, and forwarding alone executes nothing).
    """
    argv = [find_tool("ssh", Node.BACKUP), "-n", *ssh_args, "--", host, "true"]
    return servers.started(argv, node=Node.BACKUP, log=log)


@dataclass(frozen=True)
class Link:
    """An open way to the agent.

    Attributes:
        address: unix socket on this machine that leads to the agent.
        where: the agent as messages name it.
        host: what rsync's source begins with; None means this machine.
        ssh_args: arguments of ssh for rsync, which use the same connection.
        log: output of ssh, if there is one.
        idle: seconds in which something must move (IDLE_TIMEOUT).
    """

    address: Path
    where: str
    host: str | None = None
    ssh_args: tuple[str, ...] = ()
    log: Path | None = None
    idle: float = 600

    def explain(self, reason: str) -> AgentUnreachable:
        """The error for a failure on this link; ssh may know more than we do."""
        said = servers.tail(self.log) if self.log else ""
        return AgentUnreachable(where=self.where, reason=f"{reason}; ssh says: {said}" if said else reason)


@contextmanager
def forwarded(link: Link, remote: Path, local: Path) -> Iterator[Path]:
    """The address here of the unix socket ``remote`` on the ceph node, through the connection that is there.

    Raises:
        AgentUnreachable: ssh could not forward it.
    """
    if link.host is None:
        yield remote
        return
    local.unlink(missing_ok=True)
    control = [find_tool("ssh", Node.BACKUP), *link.ssh_args, "-L", f"{local}:{remote}"]
    try:
        commands.run([*control, "-O", "forward", "--", link.host], timeout=min(_CONNECT_SECONDS, link.idle))
    except CommandFailed as error:
        raise link.explain(str(error)) from None
    try:
        yield local
    finally:
        with contextlib.suppress(CommandFailed):  # the connection may be gone or hang; the forwarding goes with it
            commands.run([*control, "-O", "cancel", "--", link.host], timeout=_CANCEL_SECONDS, accepted=range(256))
        local.unlink(missing_ok=True)


@contextmanager
def connecting(settings: Settings, folder: Path) -> Iterator[Callable[[], Link]]:
    """Begin to open the way to the agent; what is yielded waits until it is open. Call it once.

    Args:
        folder: for sockets and ssh's output.

    Raises:
        AgentUnreachable: (when it is waited for) ssh could not connect; has what it said.
        ToolMissing: ssh is not installed.
    """
    if settings.ceph_host == "localhost":
        yield lambda: Link(settings.agent_socket, str(settings.agent_socket), idle=settings.idle_timeout)
        return
    address, control, log = folder / "agent.sock", folder / "ssh.ctl", folder / "ssh.log"
    where = f"{settings.ceph_host}:{settings.agent_socket}"
    user_args = shlex.split(settings.ssh_args)
    options = [word for option in _OPTIONS for word in ("-o", option)]
    forward = ["-N", "-M", "-S", str(control), "-L", f"{address}:{settings.agent_socket}"]
    # what an earlier connection of this run left; that the socket is there again tells that ssh is ready
    for leftover in (address, control, log):
        leftover.unlink(missing_ok=True)
    argv = [find_tool("ssh", Node.BACKUP), *user_args, *options, *forward, "--", settings.ceph_host]
    with ExitStack() as stack:
        ssh = stack.enter_context(servers.started(argv, node=Node.BACKUP, log=log))

        def connected() -> Link:
            try:
                ssh.wait(partial(servers.listens, address), min(_CONNECT_SECONDS, settings.idle_timeout))
            except CommandFailed as error:
                raise AgentUnreachable(where=where, reason=error) from None
            shared = (*user_args, "-S", str(control), "-o", "BatchMode=yes", "-o", "ControlMaster=no")
            stack.enter_context(_sending_at_once(shared, settings.ceph_host, folder / "true.log"))
            return Link(address, where, settings.ceph_host, shared, log, settings.idle_timeout)

        yield connected
