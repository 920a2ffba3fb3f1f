"""How both ends set up RPyC: by-value types only, and every right off."""

from __future__ import annotations

from typing import Any

CALL_SECONDS = 30
"""How long a caller waits for the answer to one call; long work is a job that is polled."""

PROTOCOL_CONFIG: dict[str, Any] = {
    "allow_all_attrs": False,
    "allow_public_attrs": False,
    "allow_exposed_attrs": False,
    "allow_safe_attrs": False,
    "allow_getattr": False,
    "allow_setattr": False,
    "allow_delattr": False,
    "allow_pickle": False,
    "import_custom_exceptions": False,
    "instantiate_custom_exceptions": False,
    "instantiate_oldstyle_exceptions": False,
    "include_local_traceback": False,
    "include_local_version": False,
    "propagate_SystemExit_locally": False,
    "log_exceptions": False,
    "sync_request_timeout": CALL_SECONDS,
}
