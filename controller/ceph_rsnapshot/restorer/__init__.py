"""From a day back to data: a new image, a file, or an NBD export for single files.

May import `content` and everything below. Never changes a backup.
"""
