"""The documents for developers are true of the tree: paths exist, no room is missing, links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ceph_rsnapshot_common.protocol import calls
from tests import ROOT

PACKAGES = {
    "agent": "ceph_rsnapshot_agent",
    "common": "ceph_rsnapshot_common",
    "controller": "ceph_rsnapshot",
}
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DECISIONS = ROOT / "docs" / "decisions"
WITH_PATHS = [ARCHITECTURE, ROOT / "CONTRIBUTING.md", ROOT / "RELEASE.md", *sorted(DECISIONS.glob("*.md"))]
ALL = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
_PATH = re.compile(r"(?:agent|benchmarks|common|controller|demo|docs|tests)/[\w./-]*")


def named(text: str) -> Iterator[str]:
    """The paths that a document names, between backticks."""
    return filter(_PATH.fullmatch, re.findall(r"`([^`\n]+)`", text))


def exists(path: str) -> bool:
    """Whether it is there as it stands, or below the import package of its root."""
    root, _, rest = path.partition("/")
    return (ROOT / path).exists() or (ROOT / root / PACKAGES.get(root, "") / rest).exists()


def anchors(text: str) -> set[str]:
    """What the links to headings may end in."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", WITH_PATHS, ids=lambda path: path.name)
def test_paths_exist(document: Path) -> None:
    assert not [path for path in named(document.read_text()) if not exists(path)]


def test_every_room_has_its_line() -> None:
    rows = {line.split("`")[1] for line in ARCHITECTURE.read_text().splitlines() if line.startswith("| `")}
    rooms = set()
    for root, package in PACKAGES.items():
        top = ROOT / root / package
        rooms |= {f"{root}/{path.parent.relative_to(top)}/" for path in top.glob("*/**/__init__.py")}
    assert rows == rooms


def test_every_module_beside_the_rooms_is_named() -> None:
    modules = {
        f"{root}/{path.name}" for root, package in PACKAGES.items() for path in (ROOT / root / package).glob("[!_]*.py")
    }
    assert modules <= set(named(ARCHITECTURE.read_text()))


@pytest.mark.parametrize("document", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_decision_is_in_the_list() -> None:
    listed = re.findall(r"^(\d+)\. \[.+\]\((\d{4})-[\w-]+\.md\)$", (DECISIONS / "README.md").read_text(), re.MULTILINE)
    pages = sorted(path.name[:4] for path in DECISIONS.glob("0*.md"))
    assert [page for _, page in listed] == pages == [f"{int(number):04}" for number, _ in listed]


def test_every_call_is_in_the_security_section() -> None:
    text = (ROOT / "docs" / "how-it-works.md").read_text().partition("## Security")[2]
    names = {each.name for each in vars(calls).values() if isinstance(each, (calls.Call, calls.Job))}
    assert names
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def test_security_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    found = re.findall(r"`(tests/[\w./]+)::(\w+)`", text)
    assert len(found) > 30
    missing = [f"{path}::{name}" for path, name in found if f"\ndef {name}(" not in _text(ROOT / path)]
    assert missing == []


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
