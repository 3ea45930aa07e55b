"""Imported last by the parent of all workers: from here on its children can be interrupted.

It is started with SIGINT blocked, so that Ctrl-C does not end its imports. Everything that it makes
would inherit that, also for other users of Python's process server in the same program.
"""

import signal

if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # forgets one that came meanwhile
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
