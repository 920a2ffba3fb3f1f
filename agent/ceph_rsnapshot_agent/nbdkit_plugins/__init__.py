"""What nbdkit loads: `reader` serves a snapshot, `writer` a new image; the others are what they share.

Runs in the distribution's Python, not in the virtual environment: may import the standard library, nbdkit, rados, rbd
and its neighbours here, and nothing else of this program.
"""
