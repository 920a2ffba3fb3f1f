"""Files and folders that must last, and those that must not: durable writing, temporary folders, locks, free space.

May import `errors`. Knows no file name of the backups.
"""
