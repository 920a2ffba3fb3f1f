"""What is asked of Ceph through librados and librbd: images, snapshots, extents, digests; only reads.

May import `nbdkit_plugins` (for the extents) and common. The only room that imports the bindings rados and rbd. Data
come from the cluster and leave as records of `ceph_rsnapshot_common.protocol`.
"""
