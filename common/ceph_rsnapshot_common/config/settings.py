"""The settings: one table of options gives defaults, YAML keys, command line flags and the reference in the docs.

A field of :class:`Settings` is an option; its upper-case name is the YAML key. The command line
(`ceph_rsnapshot_common.console.flags`) and `docs/configuration.md` are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Callable, Literal, Optional

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ceph_rsnapshot_common.config import values
from ceph_rsnapshot_common.names import Pool
from ceph_rsnapshot_common.node import Node

AbsolutePath = Annotated[Path, BeforeValidator(values.absolute_path)]
Arguments = Annotated[str, AfterValidator(values.arguments)]
Bytes = Annotated[int, BeforeValidator(values.size), Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
FileName = Annotated[str, AfterValidator(values.file_name)]
Line = Annotated[str, AfterValidator(values.line)]
Word = Annotated[str, AfterValidator(values.word)]
BACKUP, CEPH = Node.BACKUP, Node.CEPH


@dataclass(frozen=True)
class Option:
    """What the table says about an option besides its default and description.

    Attributes:
        flags: those of the command line.
        metavar: name of the value in the help; None: the flags take no value and turn the option on.
        node: where the option counts; None: on both.
        written: how its value is written in a configuration file, if not as in JSON.
    """

    flags: tuple[str, ...]
    metavar: Optional[str] = None
    node: Optional[Node] = None
    written: Optional[Callable[[Any], object]] = None


def _option(default: Any, description: str, *flags: str, **more: Any) -> Any:
    """One row of the table; ``more`` is for `Option`. Read again by `option`."""
    extra: Any = {"option": Option(flags, **more)}
    return Field(default=default, validate_default=True, description=description, json_schema_extra=extra)


class Settings(BaseModel):
    """All options, for both nodes. Immutable; made by `ceph_rsnapshot_common.config.load` or directly in scripts.

    Raises:
        pydantic.ValidationError: if a value is not allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    ceph_host: Annotated[str, AfterValidator(values.host)] = _option(
        "localhost",
        "Ceph node to back up from: `[user@]host` or an ssh alias; `localhost` means this machine, without ssh.",
        "--host",
        metavar="HOST",
        node=BACKUP,
    )
    ceph_user: Word = _option("admin", "cephx id of the agent, without `client.`.", node=CEPH)
    ceph_cluster: Word = _option("ceph", "Cluster name: the agent reads `/etc/ceph/<cluster>.conf`.", node=CEPH)
    ceph_conf: Optional[AbsolutePath] = _option(
        None, "Path of another ceph.conf, instead of `/etc/ceph/<cluster>.conf`.", node=CEPH
    )
    pool: Annotated[tuple[Pool, ...], BeforeValidator(values.pools)] = _option(
        "rbd",
        "What to back up: a pool, `pool/namespace`, or a list of them (a comma-separated string too).",
        "-p",
        "--pool",
        metavar="POOL",
        written=lambda pools: [str(pool) for pool in pools],
    )
    qcow_temp_path: AbsolutePath = _option(
        "/var/lib/ceph-rsnapshot/qcow", "Folder on the ceph node for the temporary qcow2 files.", node=CEPH
    )
    extra_args: Arguments = _option("", "Extra arguments on rsnapshot's command line.", node=BACKUP)
    extra_long_args: Annotated[tuple[str, ...], BeforeValidator(values.rsync_long_args)] = _option(
        "",
        "Extra long arguments for rsync, without the dashes: `foo,bar` means `--foo --bar`.",
        "-e",
        "--extralongargs",
        metavar="EXTRALONGARGS",
        node=BACKUP,
        written=",".join,
    )
    temp_conf_dir_prefix: Annotated[str, AfterValidator(values.path_prefix)] = _option(
        "ceph_rsnapshot_temp_conf_",
        "How the name of the temporary folder for rsnapshot's configurations begins; in the system's folder for "
        "temporary files unless it is an absolute path.",
        node=BACKUP,
    )
    temp_conf_dir: Optional[AbsolutePath] = _option(
        None,
        "Folder for rsnapshot's configurations, instead of a temporary one; then KEEPCONF is true unless it is set.",
        node=BACKUP,
    )
    backup_base_path: AbsolutePath = _option(
        "/backups/ceph_rsnapshot", "Base path of the backups on the backup node (made with mode 0700).", node=BACKUP
    )
    keepconf: Optional[bool] = _option(
        None,
        "Keep rsnapshot's configurations after the run. Default: false, but true if TEMP_CONF_DIR is set.",
        "-k",
        "--keepconf",
        node=BACKUP,
    )
    log_base_path: AbsolutePath = _option("/var/log/ceph-rsnapshot", "Folder of the log files.", node=BACKUP)
    log_filename: FileName = _option(
        "ceph_rsnapshot.log", "Name of the log file; errors go there and to the terminal.", node=BACKUP
    )
    verbose: bool = _option(False, "Debug logging.", "-v", "--verbose")
    image_re: Annotated[str, AfterValidator(values.regular_expression)] = _option(
        ".*",
        "Regular expression that chooses the images; it must match from the beginning of the name (Python's re.match).",
        "--image-re",
        metavar="RE",
    )
    retain_interval: Annotated[str, AfterValidator(values.interval)] = _option(
        "daily", "Interval name in rsnapshot's retain line.", node=BACKUP
    )
    retain_number: Annotated[int, AfterValidator(values.retain_number)] = _option(
        14,
        "How many days to keep: number in rsnapshot's retain line; 2 or more, because rsnapshot's rotation with "
        "sync_first fails with 1.",
        node=BACKUP,
    )
    retain_min_age: Annotated[int, BeforeValidator(values.days)] = _option(
        0,
        "Days (or `30d`) for which a day is kept at least, counted from when this node landed it: no rotation removes "
        "it before, so that there may be more than RETAIN_NUMBER of them; 0: RETAIN_NUMBER alone counts.",
        node=BACKUP,
    )
    orphan_keep: Annotated[int, BeforeValidator(values.days)] = _option(
        0,
        "Days (or `30d`) for which the last day of a deleted image is kept at least, counted from when its deletion "
        "was first seen; 0: it rolls off with the others. 30 is a good value.",
        node=BACKUP,
    )
    snap_naming_date_format: Line = _option(
        "%Y-%m-%d", "Format for date(1); what it prints is the name of the snapshot to back up."
    )
    snap_date: Line = _option(
        "today",
        "What `date --date` gets: `today`, `1 day ago`, `2016-10-04`. Worked out once a run.",
        "--snap-date",
        metavar="DATE",
    )
    min_freespace: Bytes = _option(
        "5G",
        "Bytes (or `5G`, `500M`) that stay free while a qcow2 is written: on the backup node, and in staged mode on "
        "the ceph node too.",
    )
    transfer_mode: Literal["staged", "direct"] = _option(
        "staged",
        "`staged`: the ceph node makes a qcow2 and rsync pulls it. `direct`: the backup node makes it, and only what "
        "changed since the last backup crosses the network.",
        "--transfer-mode",
        metavar="MODE",
        node=BACKUP,
    )
    verify: Literal["none", "changed", "full"] = _option(
        "changed",
        "What is compared with the snapshot, by digests, before a backup counts: `changed`: what was written, and a "
        "sample of the rest; `full`: everything; `none`.",
        "--verify",
        metavar="WHAT",
        node=BACKUP,
    )
    verify_sample: Bytes = _option(
        "64M", "Bytes (or `64M`) of the sample that VERIFY `changed` takes all over the image.", node=BACKUP
    )
    verify_full_every: Annotated[int, Field(ge=0)] = _option(
        14,
        "Each image is compared in full at least every so many backups, not all in one night; 0: never. "
        "With VERIFY `none` nothing is compared.",
        node=BACKUP,
    )
    fast_diff: bool = _option(
        False,
        "Let the object map choose the objects that the OSDs are asked about: much faster for large images, and only "
        "as right as the map (see docs/how-it-works.md). Not for images whose map is marked invalid.",
        "--fast-diff",
        node=BACKUP,
    )
    bandwidth_limit: Bytes = _option(
        0,
        "Bytes (or `50M`) a second that one transfer may take; 0: no limit.",
        "--bandwidth-limit",
        metavar="BYTES",
        node=BACKUP,
    )
    qcow_cluster_size: Annotated[int, BeforeValidator(values.size), AfterValidator(values.cluster_size)] = _option(
        65536, "Cluster size of new qcow2 files: a power of two from 512 to `2M`.", node=BACKUP
    )
    qcow_compression: Literal["none", "zlib", "zstd"] = _option(
        "none", "Compression of full backups. What increments write into them is not compressed.", node=BACKUP
    )
    sh_logging: bool = _option(False, "Log every external command with its exit code, time and output.")
    agent_socket: AbsolutePath = _option("/run/ceph-rsnapshot/agent.sock", "The agent's unix socket on the ceph node.")
    ssh_args: Annotated[str, AfterValidator(values.ssh_arguments)] = _option(
        "", "Arguments for every ssh: that of the connection to the agent and rsync's.", node=BACKUP
    )
    noop: bool = _option(False, "Say what would be done and do nothing.", "-n", "--noop", node=BACKUP)
    no_rotate_orphans: bool = _option(
        False, "Leave the backups of deleted images alone.", "--no-rotate-orphans", node=BACKUP
    )
    bases_path: Optional[AbsolutePath] = _option(
        None,
        "Folder in which the agent notes which snapshot of an image was backed up last, for `gathernames --json`. "
        "Default: `bases` beside QCOW_TEMP_PATH.",
        node=CEPH,
    )
    allow_restore: bool = _option(
        False,
        "Allow the controller to create images (`ceph_rsnapshot restore`); existing ones are never written to.",
        node=CEPH,
    )
    ceph_restore_user: Optional[Word] = _option(
        None, "cephx id for restores, which must be able to write. Default: CEPH_USER.", node=CEPH
    )
    rados_timeout: Annotated[int, AfterValidator(values.seconds)] = _option(
        120, "Seconds after which a Ceph operation that doesn't answer fails.", node=CEPH
    )
    idle_timeout: Annotated[int, AfterValidator(values.seconds)] = _option(
        600,
        "Seconds after which a wait ends in which nothing moves: for the agent, an NBD export, ssh, rsync or a tool. "
        "What is slow and goes on is never ended.",
    )
    export_lease: Annotated[int, AfterValidator(values.seconds)] = _option(
        300,
        "Seconds for which an NBD export (direct mode, restore) is lent: it is closed if the controller does not renew "
        "it for so long.",
        node=CEPH,
    )
    restore_max_size: Bytes = _option("64T", "Bytes (or `64T`) that an image to restore may have.", node=CEPH)
    max_connections: Count = _option(
        100, "Connections that the agent serves at once; who is one too many is told so.", node=CEPH
    )
    hello_timeout: Annotated[int, AfterValidator(values.seconds)] = _option(
        30, "Seconds after which a connection is closed that has not said who it is.", node=CEPH
    )
    max_jobs: Count = _option(200, "Jobs (listings, exports, comparisons) under way at once, in all.", node=CEPH)
    max_connection_jobs: Count = _option(40, "The same of one connection.", node=CEPH)
    max_exports: Count = _option(
        64, "Exports at once, in all: staged qcow2 files, NBD exports and images that are restored.", node=CEPH
    )
    max_connection_exports: Count = _option(32, "The same of one connection.", node=CEPH)
    read_threads: Count = _option(
        16, "Threads that list images and read them for comparisons, for all jobs together.", node=CEPH
    )
    max_base_notes: Count = _option(
        100_000, "Notes in BASES_PATH that are kept, one an image: then the oldest go.", node=CEPH
    )

    @property
    def keeps_conf(self) -> bool:
        """Whether rsnapshot's configurations stay after the run."""
        return self.temp_conf_dir is not None if self.keepconf is None else self.keepconf

    @property
    def bases_folder(self) -> Path:
        """Where the agent notes what was backed up last."""
        return self.bases_path or self.qcow_temp_path.parent / "bases"

    @property
    def restore_user(self) -> str:
        """The cephx id for restores."""
        return self.ceph_restore_user or self.ceph_user

    @property
    def ceph_conf_path(self) -> Path:
        """The ceph.conf that the agent reads."""
        return self.ceph_conf or Path("/etc/ceph") / f"{self.ceph_cluster}.conf"

    def written(self) -> dict[str, object]:
        """The value of each option as it is written in a configuration file (as JSON, which is also YAML)."""
        values = self.model_dump(mode="json")
        for key in values:
            if (write := option(key).written) is not None:
                values[key] = write(getattr(self, key))
        return values


def option(key: str) -> Option:
    """What the table says about the option ``key`` (a field of `Settings`)."""
    extra: Any = Settings.model_fields[key].json_schema_extra
    found: Option = extra["option"]
    return found
