"""The base of all records."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Immutable. Its validator is built at first use: a run needs only a few records, and start-up time counts."""

    model_config = ConfigDict(frozen=True, defer_build=True)
