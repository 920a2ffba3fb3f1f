"""Other programs: commands to their end, servers while they are needed, signals that must wait, and qemu-img.

May import `files`, `protocol`, `errors`. Everything that is started here ends with the block that started it.
"""
