"""Staged mode: a snapshot becomes a qcow2 below QCOW_TEMP_PATH, which is claimed while it is there.

May import `nbd`, `ceph` and common. Files leave through rsync, which the backup node runs.
"""
