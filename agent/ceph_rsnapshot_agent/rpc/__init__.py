"""What a controller can reach: the socket, the table of calls, and what one connection has under way.

May import every other room. Requests come as JSON text and are judged where they are read; answers leave the same way.
"""
