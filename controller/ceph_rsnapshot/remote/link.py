"""The way to the agent: its unix socket on this machine, or that socket forwarded by one shared ssh connection."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ceph_rsnapshot_common.config.settings import Settings
from ceph_rsnapshot_common.errors import AgentUnreachable, CommandFailed
from ceph_rsnapshot_common.node import Node
from ceph_rsnapshot_common.process import commands, servers
from ceph_rsnapshot_common.process.commands import find_tool

_CONNECT_SECONDS = 60.0
_CANCEL_SECONDS = 2.0
# What SSH_ARGS says comes first and wins; then this; then the user's configuration (ssh_config(5)). ssh never asks
# (nobody is there at night), believes only host keys that are known, and gives the other side nothing to reach back to.
_SAFE = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "Tunnel=no",
)
# it notices a dead peer, and does not leave a master behind
_OPTIONS = (
    "ConnectTimeout=30",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "ControlPersist=no",
    # with the AES instructions of any current processor several times as fast as ssh's default, ChaCha20
    "Ciphers=^aes128-gcm@openssh.com",
)


def _words(user_args: Sequence[str], options: Sequence[str]) -> tuple[str, ...]:
    """Arguments of ssh; it forwards neither its agent nor X11, whatever SSH_ARGS says."""
    return (*user_args, "-a", "-x", *(word for option in options for word in ("-o", option)))


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
        control: socket of the ssh that holds the connection.
        log: output of ssh, if there is one.
        idle: seconds in which something must move (IDLE_TIMEOUT).
    """

    address: Path
    where: str
    host: str | None = None
    ssh_args: tuple[str, ...] = ()
    control: Path | None = None
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
    # -F none: forwardings of the user's configuration would be asked for too
    control = [find_tool("ssh", Node.BACKUP), "-F", "none", "-S", str(link.control), "-L", f"{local}:{remote}"]
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
    # what an earlier connection of this run left; that the control socket is there again tells that ssh is ready
    for leftover in (address, control, log):
        leftover.unlink(missing_ok=True)
    master = [*_words(user_args, [*_SAFE, *_OPTIONS]), "-N", "-M", "-S", str(control)]
    argv = [find_tool("ssh", Node.BACKUP), *master, "--", settings.ceph_host]
    with ExitStack() as stack:
        ssh = stack.enter_context(servers.started(argv, node=Node.BACKUP, log=log))

        def connected() -> Link:
            try:
                ssh.wait(control.exists, min(_CONNECT_SECONDS, settings.idle_timeout))
            except CommandFailed as error:
                raise AgentUnreachable(where=where, reason=error) from None
            shared = (*_words(user_args, ["ControlMaster=no", *_SAFE]), "-S", str(control))
            link = Link(address, where, settings.ceph_host, shared, control, log, settings.idle_timeout)
            stack.enter_context(forwarded(link, settings.agent_socket, address))
            stack.enter_context(_sending_at_once(shared, settings.ceph_host, folder / "true.log"))
            return link

        yield connected
