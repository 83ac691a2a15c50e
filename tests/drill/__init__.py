"""The fault drill: disturbed pretraining runs must end as the undisturbed one does.

`make drill` (`python -m tests.drill`) is the long version, `test_drill.py` the short one.
"""
