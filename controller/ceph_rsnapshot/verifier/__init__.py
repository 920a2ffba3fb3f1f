"""Finished backups are verified; what is found is noted beside the days.

May import `content` and everything below. Never changes a backup.
"""
