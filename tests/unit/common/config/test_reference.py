"""The reference of the configuration agrees with the table of options."""

from __future__ import annotations

from ceph_rsnapshot_common.config.reference import reference
from ceph_rsnapshot_common.config.settings import Settings, option
from tests import ROOT


def test_the_reference_is_up_to_date() -> None:
    """`make docs` writes it."""
    assert (ROOT / "docs" / "configuration.md").read_text() == reference()


def test_every_option_is_in_the_reference_with_its_flags() -> None:
    text = reference()
    for key, field in Settings.model_fields.items():
        assert f"| `{key.upper()}` |" in text
        assert all(f"`{flag}`" in text for flag in option(key).flags)
        assert field.description
