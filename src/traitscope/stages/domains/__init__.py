"""Answers to tasks: judged, filtered and measured; code of answers is run only where asked for."""
