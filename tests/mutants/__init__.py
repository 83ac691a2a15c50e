"""Mutation campaign: small faults are put into a copy of the code, and the tests must notice them.

`make mutants` (`python -m tests.mutants`) repeats a sample; `equivalent.txt` lists the mutants that
change nothing that a test could see, each with its reason.
"""
