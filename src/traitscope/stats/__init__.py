"""Statistics: numbers in, estimates with intervals out.

The modules are:

    measurement       the type of every estimate
    estimates         means, paired differences and ratios, with the interval that fits the data
    intervals         Wilson, Student's t, bootstrap over crossed factors
    permutation       permutation tests: audited rows against placebos; sign flips
    correlation       rank correlation and discrimination, with permutation p
    dose_response     transfer ratios, and how a response depends on strength
    equivalence       evidence of no effect
    multiple_testing  p values corrected for the number of tests
    power             how many seeds or samples are needed
    inputs            checks of the numbers that all of these are given
"""
