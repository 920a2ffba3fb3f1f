"""Real parts for the demo and the tests: a Ceph cluster and an sshd of their own, on loopback."""
