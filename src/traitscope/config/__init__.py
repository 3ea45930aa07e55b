"""Settings of every command: frozen dataclasses that import nothing heavy."""
