"""Defences: rows changed before a student reads them.

`methods` has the table of methods with what each needs, `knowledge` what a defender may use. The
methods are in `number_forms` (one format), `row_choice` (rows that leave or join) and `washing`
(tokens and answers that are drawn anew). `suspicion` says which rows and tokens are suspect. `run`
is the stage, and `page` its report.
"""
