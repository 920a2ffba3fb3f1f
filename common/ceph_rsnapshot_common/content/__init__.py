"""Content of images as ranges and digests: pure computation, without files or processes.

Imports nothing else from this program.
"""
