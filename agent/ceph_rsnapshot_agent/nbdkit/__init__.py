"""What nbdkit loads: `plugin` runs in the distribution's Python and may import the standard library, rados, rbd
and its neighbours `windows` and `diff` only.
"""
