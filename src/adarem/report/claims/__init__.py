"""The paper's claims: what they say, and what the runs say of them.

In: claims.yaml and sweeps. Out: verdicts with their evidence.
"""
