"""What people see: lines, tables, bars and the calendar.

Imports records of what was done; never does anything itself.
"""
