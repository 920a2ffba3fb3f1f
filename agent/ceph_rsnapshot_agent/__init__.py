"""The agent on the ceph node: lists RBD images and snapshots and turns snapshots into qcow2 files."""
