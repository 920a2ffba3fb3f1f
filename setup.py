"""The metadata is in setup.cfg, whose ``packages = find:`` knows one root; here are the three."""

from setuptools import find_packages, setup

setup(packages=[package for root in ("agent", "common", "controller") for package in find_packages(root)])
