"""The report as one HTML page.

In: tables, figures and verdicts. Out: HTML that needs no network.
"""
