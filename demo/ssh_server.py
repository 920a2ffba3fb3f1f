"""A real sshd on a free loopback port, with keys of its own; nothing of /etc or ~/.ssh is read or changed."""

from __future__ import annotations

import getpass
import subprocess
from contextlib import ExitStack
from pathlib import Path

from demo import child

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowStreamLocalForwarding yes
MaxSessions 50
LogLevel VERBOSE
"""


class SshServer:
    """A running sshd, as a context manager.

    Attributes:
        host: ``user@127.0.0.1``, to log in as the current user.
        port: its TCP port.
        ssh_args: what ssh needs to reach it and to trust exactly its key.
        known_hosts: the client's known_hosts file.

    Args:
        config: more of sshd_config, such as a Match block.
        key_options: of the client's key in authorized_keys.
    """

    def __init__(self, folder: Path | None = None, config: str = "", key_options: str = "") -> None:
        self._wanted = folder
        self._config, self._key_options = config, key_options
        self._stack = ExitStack()

    def __enter__(self) -> SshServer:
        with ExitStack() as stack:
            self.folder = stack.enter_context(child.own_folder(self._wanted, "sshd-"))
            self.host = f"{getpass.getuser()}@127.0.0.1"
            self._make_keys()
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def ssh_args(self) -> list[str]:
        options = [f"UserKnownHostsFile={self.known_hosts}", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]
        words = [word for option in options for word in ("-o", option)]
        return ["-F", "none", "-p", str(self.port), "-i", str(self.folder / "client_key"), *words]

    def _make_keys(self) -> None:
        for name in ("host_key", "client_key"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(argv, check=True)
        public = (self.folder / "client_key.pub").read_text()
        (self.folder / "authorized_keys").write_text(f"{self._key_options} {public}".lstrip())

    def _start(self, stack: ExitStack) -> None:
        # sshd insists on this folder for privilege separation; Debian makes it at boot
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config, log = self.folder / "sshd_config", self.folder / "sshd.log"
        with child.free_ports(1) as (self.port,):
            config.write_text(_CONFIG.format(port=self.port, folder=self.folder) + self._config)
        key = (self.folder / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {key}")
        sshd = child.start(["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], log)
        stack.callback(child.stop, sshd)
        child.wait_ready(sshd, lambda: child.port_answers(self.port), log)
