"""The data sets of the calibration: the menu, and how the rows of a set are made on the model."""
