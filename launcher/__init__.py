"""The half of samebits that runs on the login node and in the batch script: plan, pin, submit, decide, report."""

__version__ = "0.1.0"
