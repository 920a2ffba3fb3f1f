"""The tree of errors: as its docstring draws it, and across the wire."""

from __future__ import annotations

import string
from collections.abc import Iterator

from ceph_rsnapshot_common import errors
from ceph_rsnapshot_common.errors import (
    CephRsnapshotError,
    ConfigError,
    ErrorRecord,
    NotEnoughSpace,
    UsageError,
    from_record,
)


def _tree(kind: type[CephRsnapshotError], depth: int = 2) -> Iterator[str]:
    data = ", ".join(name for _, name, _, _ in string.Formatter().parse(kind.template) if name)
    yield f"{'  ' * depth + kind.__name__:<29} {kind.exit_code}  {data}".rstrip()
    for below in kind.__subclasses__():
        yield from _tree(below, depth + 1)


def test_the_docstring_draws_the_tree() -> None:
    drawn = [line.partition(" (")[0] for line in str(errors.__doc__).splitlines() if line.startswith("    ")]
    assert drawn == list(_tree(CephRsnapshotError))


def test_a_usage_error_is_an_error_of_the_configuration_outside() -> None:
    error = UsageError(path="--to", problems="why")
    assert (error.code, error.exit_code, str(error)) == ("config", 2, "--to: why")
    assert type(from_record(error.record())) is ConfigError


def test_errors_cross_the_wire_as_their_class() -> None:
    error = NotEnoughSpace(path="/x", need=3, free=2, minimum=1)
    again = from_record(ErrorRecord.model_validate_json(error.record().model_dump_json()))
    assert type(again) is NotEnoughSpace
    assert str(again) == str(error)
    assert again.data == error.data


def test_an_unknown_error_is_an_error_too() -> None:
    again = from_record(ErrorRecord(code="of-the-future", message="what it says"))
    assert type(again) is CephRsnapshotError
    assert str(again) == "what it says"
