"""What can go wrong on real machines, done on purpose: ``make chaos`` prints the tally.

:mod:`tests.chaos.scenarios` and :mod:`tests.chaos.ends` hold the cases, :mod:`tests.chaos.tools` what
they do to a run; the tests run a few of each (:mod:`tests.chaos.test_chaos`).
"""
