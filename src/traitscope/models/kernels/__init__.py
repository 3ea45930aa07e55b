"""Compiled passes over memory for CPUs, and the torch operations that they stand for.

Between two matrix products torch makes several passes over memory. A norm takes six, a gate three,
the loss at the output head five. Here each is one pass, compiled on first use by the machine's own
C++ compiler. Where there is none, torch computes the same up to rounding, and `traitscope doctor`
says so.
"""
