"""Statistics: numbers in, estimates with intervals out.

The modules are:

    measurement       the type of every estimate
    estimates         means, paired differences and ratios, with the interval that fits the data
    intervals         of proportions, Student's t, bootstrap over crossed factors
    permutation       permutation tests of audited rows against placebos
    correlation       rank correlation and discrimination, with permutation p
    dose_response     transfer ratios, and how a response depends on strength
    tails             one-sided p values, by the law that made an interval
    decision          what several claims tested together come out as
    power             the power of tests, and the effects that they can detect
    mixtures          what many possible writers together say of rows
    inputs            checks of the numbers that all of these are given
"""
