"""Whether both nodes are ready for tonight. Only looks.

May import `content` and everything below.
"""
