"""One snapshot, or one new image, as an NBD export by nbdkit, and the lease by which a controller has it.

May import `ceph` and common.
"""
