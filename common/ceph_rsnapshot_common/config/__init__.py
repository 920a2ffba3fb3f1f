"""The settings: one table of options, its checks, the file they are read from, and the reference in the documentation.

May import `process` (date(1) names the snapshot of the day), `errors`, `names`, `sizes`. Data come from a YAML file and
the command line, and leave as one frozen `settings.Settings`.
"""
