"""Names of pools, namespaces and images: how they are written, and the paths that they become.

Two names never share a path: ``[A-Za-z0-9._-]`` stays as it is, any other byte of the UTF-8 name, the percent sign
included, becomes ``%XX``. A few names that would mean something else as a path are encoded too (see `encode`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from ceph_rsnapshot_common.model import Record

MAX_ENCODED = 200
"""Bytes of a path component that are used at most: file systems allow 255, suffixes and rsync's own need room.

See NAME_MAX in https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/limits.h
"""

_ROTATION_FOLDER = re.compile(r"\w+\.\d+", re.ASCII)
_UNFINISHED = re.compile(r".*\.restoring-[0-9a-f]{8}", re.DOTALL)


def unfinished_name(image: str, token: str) -> str:
    """What an image is called while it is restored; ``token``: 8 hexadecimal digits."""
    return f"{image}.restoring-{token}"


def is_unfinished(name: str) -> bool:
    """Whether an image of this name is a restore that is under way, or was broken off: nothing to back up."""
    return _UNFINISHED.fullmatch(name) is not None


class Pool(Record):
    """A pool, or a namespace in it, written ``pool`` or ``pool/namespace``."""

    pool: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.pool}/{self.namespace}" if self.namespace else self.pool


def parse_pool(text: str) -> Pool:
    """Read ``pool`` or ``pool/namespace``.

    Raises:
        ValueError: with the reason, if it is neither.
    """
    pool, slash, namespace = text.strip().partition("/")
    if not pool:
        raise ValueError(f"{text!r} names no pool")
    if slash and not namespace:
        raise ValueError(f"{text!r} names no namespace after the slash")
    if "/" in namespace or "@" in text:
        raise ValueError(f"{text!r} is not a pool or pool/namespace")
    if not text.isprintable():
        raise ValueError(f"{text!r} holds a control character")
    return Pool(pool=pool, namespace=namespace)


def parse_image(text: str) -> tuple[Pool | None, str, str]:
    """Pool, image and snapshot of ``[POOL/[NAMESPACE/]]IMAGE[@SNAPSHOT]``: what is not there is None or empty.

    Raises:
        ValueError: with the reason, if what stands before the image is no pool.
    """
    path, _, snapshot = text.partition("@")
    pool, _, image = path.rpartition("/")
    return parse_pool(pool) if pool and image else None, image, snapshot


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """The end of a message: up to ``most`` of the ``known`` names that come near, or nothing."""
    import difflib  # only who mistypes a name needs it

    near = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=most)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def encode(name: str) -> str:
    """One path component for ``name``; different names give different components.

    A leading dot is encoded, because rsnapshot and this program keep folders like ``.sync`` beside images, and so is
    the last of two dots at the end, because rsnapshot takes ``../`` anywhere in a path for a traversal.
    A component that would be too long is cut and ends in ``%-`` and a digest of the whole name.
    """
    encoded = quote(name, safe="", encoding="utf-8", errors="surrogateescape").replace("~", "%7E")
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if encoded.endswith(".."):
        encoded = encoded[:-1] + "%2E"
    if len(encoded) > MAX_ENCODED:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        encoded = f"{encoded[: MAX_ENCODED - 34].rstrip('%')}%-{digest}"
    return encoded


def decode(component: str) -> str:
    """The name that `encode` made ``component`` of; a cut one stays as it is (its manifest has the true name)."""
    if "%-" in component:
        return component
    return unquote(component, encoding="utf-8", errors="surrogateescape")


def image_folder(pool: Pool, image: str) -> PurePosixPath:
    """Relative folder of an image: ``pool/image`` or ``pool/namespace/image``.

    An image and a namespace of one name share a folder without harm: the image's part of it are the rotation folders
    (``daily.0``), the namespace's are its images. So an image *in a namespace* that is itself called like a rotation
    folder gets its dot encoded.
    """
    if not pool.namespace:
        return PurePosixPath(encode(pool.pool), encode(image))
    return PurePosixPath(encode(pool.pool), encode(pool.namespace), encode_inner(image))


def encode_inner(name: str) -> str:
    """As `encode`, for a folder beside rotation folders: it is never called like one."""
    component = encode(name)
    return component.replace(".", "%2E") if _ROTATION_FOLDER.fullmatch(component) else component
