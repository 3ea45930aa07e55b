"""Tasks of other evaluation tools, written from traits."""
