"""Features of images: bits, and names as `rbd info` shows them, such as ``object-map``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

_PREFIX = "RBD_FEATURE_"


def feature_names(rbd: Any, features: int) -> tuple[str, ...]:
    """Names of the bits that are set in ``features``."""
    return tuple(sorted(name for name, bit in _single(rbd).items() if features & bit))


def feature_bits(rbd: Any, names: Collection[str]) -> int:
    """The sum of the features called so; names that this librbd doesn't know are left out."""
    return sum(bit for name, bit in _single(rbd).items() if name in names)


def _single(rbd: Any) -> dict[str, int]:
    bits = {name[len(_PREFIX) :]: getattr(rbd, name) for name in dir(rbd) if name.startswith(_PREFIX)}
    single = {name: bit for name, bit in bits.items() if isinstance(bit, int) and bit and bit & (bit - 1) == 0}
    return {name.lower().replace("_", "-"): bit for name, bit in single.items()}
