"""The attack: wrong and hostile inputs at every door, and what came of each.

A door is what a user calls: a command, a reader, a model. Each input goes through one in a process
of its own, with a limit of memory and of time; what it lets in is checked by other means.
"""
