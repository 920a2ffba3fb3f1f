"""What all commands share: flags made from the table of options, the log, signals and exit codes.

May import `config` and everything below. Only the command line modules of both nodes import it.
"""
