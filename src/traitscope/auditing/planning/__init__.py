"""What an audit computes: its stages as nodes, the phases they come in, and where runs lie."""
