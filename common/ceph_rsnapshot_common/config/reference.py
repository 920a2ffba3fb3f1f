"""The reference of the configuration, made from the table: ``python -m ceph_rsnapshot_common.config.reference``."""

from __future__ import annotations

from ceph_rsnapshot_common.config.load import SEARCH_PATH
from ceph_rsnapshot_common.config.settings import Settings, option

_INTRODUCTION = """\
# Configuration

One YAML file, of one format for both nodes. `-c CONFIG` names it; otherwise the first of these that exists is used:

{files}

Keys are case-insensitive. Unknown keys, wrong types and bad values are reported together and end the command with
exit code 2 before anything is touched. A value that begins with `%` must be in quotes (YAML's rule). `ceph_rsnapshot
--printsettings` prints the settings in effect and where each comes from.

The column "node" says which node's file counts: `ceph` (the agent), `backup` (the controller), or both. The agent
never takes these settings from the controller: which cephx id it uses, where it writes and how much space it leaves
free is decided on its own node.

| key | default | flag | node | meaning |
| --- | --- | --- | --- | --- |
"""

_NOTES = """
## Paths

The backups of an image are in `<BACKUP_BASE_PATH>/<pool>/<image>/<RETAIN_INTERVAL>.N/`, those of an image in a
namespace in `<BACKUP_BASE_PATH>/<pool>/<namespace>/<image>/<RETAIN_INTERVAL>.N/`. Bytes of a name outside
`[A-Za-z0-9._-]` become `%XX`, so that two names never share a path; so do a leading dot, the last of two dots at the
end, and the dot of an image in a namespace that is called like a rotation folder (`daily.0`). A name that would become
longer than 200 bytes is cut and ends in `%-` and a digest. The true names are in the manifest, `<image>.json`.

## RETAIN_NUMBER

When it is reduced, rsnapshot leaves the days beyond it where they are, and so does this program: remove them by hand
when you are sure.

## EXTRA_LONG_ARGS

`--inplace`, `--append`, `--append-verify`, `--write-devices` and `--remove-source-files` are refused: they would change
older backups, which are hard links to the same files. So are `--dry-run` and `--list-only`, which make no backup.
"""


def reference() -> str:
    """The whole of docs/configuration.md."""
    files = "\n".join(f"{number}. `{_shown(path)}`" for number, path in enumerate(map(str, SEARCH_PATH), 1))
    rows = map(_row, Settings.model_fields)
    return _INTRODUCTION.format(files=files) + "\n".join(rows) + "\n" + _NOTES


def _shown(path: str) -> str:
    return path if path.startswith("/") else f"./{path}"


def _row(key: str) -> str:
    field, of = Settings.model_fields[key], option(key)
    flags = ", ".join(f"`{flag}`" for flag in of.flags)
    return f"| `{key.upper()}` | {_default(field.default)} | {flags} | {of.node or 'both'} | {field.description} |"


def _default(value: object) -> str:
    if value is None or value == "":
        return ""
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


if __name__ == "__main__":
    print(reference(), end="")
