"""A new RBD image that a restore fills, and its content as it is read back.

May import `nbd`, `ceph` and common. The only room that changes anything in the cluster, and only images that it made.
"""
