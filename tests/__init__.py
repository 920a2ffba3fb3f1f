"""`unit` runs anywhere in seconds; `cluster` needs root, and starts a Ceph cluster and an sshd of its own."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent
