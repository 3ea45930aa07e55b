"""Calibration of the audit that ships: a menu of data sets, each audited once by `audit` itself."""
