"""A night: list, plan, transfer, verify, commit, rotate orphans, report.

May import `content` and everything below. Data come from the agent and leave as finished days and a `report.RunReport`.
"""
