"""The unit tests on every Python that setup.cfg names, as far as it is installed: ``make unit-all``."""

from __future__ import annotations

import configparser

import nox

nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True


def _pythons() -> list[str]:
    """What the classifiers of setup.cfg say."""
    metadata = configparser.ConfigParser()
    metadata.read("setup.cfg")
    words = [line.rpartition(" ")[2] for line in metadata["metadata"]["classifiers"].splitlines()]
    return [word for word in words if word.startswith("3.")]


@nox.session(python=_pythons())
def unit(session: nox.Session) -> None:
    """An environment without the system's packages: there are no bindings of Ceph in it."""
    session.install("-q", "-e", ".[agent,controller,test]")
    session.run("pytest", "-q", "tests/unit", *session.posargs)
