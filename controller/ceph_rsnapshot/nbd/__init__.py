"""The backup node's NBD: qemu-nbd for a file, libnbd handles on it, copying and reading ahead.

May import common. Data flow from one NBD server to another, or to who reads.
"""
