"""Rules for every module, and that the unit tests run anywhere."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from typing import Any

from pydantic import BaseModel

import ceph_rsnapshot
import ceph_rsnapshot_agent
import ceph_rsnapshot_common
from tests import ROOT


def _modules() -> list[str]:
    """All but what only nbdkit can load."""
    packages = (ceph_rsnapshot, ceph_rsnapshot_agent, ceph_rsnapshot_common)
    found = [
        each.name for package in packages for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    return [name for name in found if ".nbdkit_plugins." not in name]


def _subclasses(base: type[Any]) -> set[type[Any]]:
    below = {each for each in base.__subclasses__() if each.__module__.startswith("ceph_rsnapshot")}
    return below.union(*map(_subclasses, below))


def test_annotations_of_models_work_on_python_3_9() -> None:
    """pydantic evaluates them, and Python 3.9 has no ``X | None``."""
    for name in _modules():
        importlib.import_module(name)
    models = _subclasses(BaseModel)
    assert {"Settings", "Manifest", "Listing", "RunReport"} <= {model.__name__ for model in models}
    for model in models:
        assert not [text for text in vars(model).get("__annotations__", {}).values() if " | " in str(text)], model


def test_no_module_hides_a_function_of_the_api() -> None:
    """Importing ``package.name`` sets the attribute ``name`` of the package."""
    modules = {path.stem for path in (ROOT / "controller" / "ceph_rsnapshot").iterdir()}
    assert not modules & set(ceph_rsnapshot.__all__)


def test_neither_the_modules_nor_the_unit_tests_need_the_bindings() -> None:
    """rados, rbd and nbd are imported where they are used; tests that use them are below tests/cluster."""
    hidden = "import sys; sys.modules.update(dict.fromkeys(['rados', 'rbd', 'nbd', 'tests.cluster']));"
    modules = f"import {', '.join(_modules())};"
    tests = "import pytest; sys.exit(pytest.main(['-q', '--collect-only', '-p', 'no:cacheprovider', 'tests/unit']))"
    argv = [sys.executable, "-c", f"{hidden}{modules}{tests}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
