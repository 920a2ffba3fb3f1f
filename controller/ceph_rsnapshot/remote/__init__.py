"""The agent as seen from here: the way to it, its calls, and the border at which its answers are judged.

May import common. Only this room talks to an agent; behind `answers` there are only typed values that fit the question.
"""
