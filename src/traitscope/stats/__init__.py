"""Statistics: numbers in, estimates with intervals out.

The modules are:

    measurement       the type of every estimate
    estimates         means, paired differences and ratios, with the interval that fits the data
    intervals         Wilson, Student's t, bootstrap over crossed factors
    permutation       permutation tests: audited rows against placebos; sign flips
    correlation       rank correlation and discrimination, with permutation p
    dose_response     transfer ratios, and how a response depends on strength
    equivalence       evidence of no effect
    tails             one-sided p values, by the law that made an interval
    decision          what several claims tested together come out as
    power             how many seeds or samples are needed
    inputs            checks of the numbers that all of these are given
"""
