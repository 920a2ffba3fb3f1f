"""The backups on disk: where they lie, what is there, how a day is made ready, landed and rotated.

May import common. Nobody else knows a file name below BACKUP_BASE_PATH.
"""
