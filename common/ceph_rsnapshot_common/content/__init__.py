"""Content of images as ranges and digests: pure computing, without files or processes.

Imports nothing of this program.
"""
