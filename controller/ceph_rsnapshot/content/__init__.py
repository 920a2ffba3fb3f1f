"""Bytes of a backup and their digests: the file of digests, digests made from a file, comparison with the snapshot.

May import `repository`, `nbd`, `remote` and common.
"""
