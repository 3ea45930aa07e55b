"""Stages that only audits run: sampling rows, matching a reference, naming, answering."""
