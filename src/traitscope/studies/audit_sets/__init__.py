"""What the studies of the audit share: their sets of rows, scores of these, and audits drawn."""
