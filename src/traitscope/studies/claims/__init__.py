"""Published claims: one file each (see studies/protocol.py for what a study holds)."""
