"""What the agent and the controller of ceph-rsnapshot share; imports neither of them."""

__version__ = "1.0.0"
