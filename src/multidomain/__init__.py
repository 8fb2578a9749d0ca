"""Multi-domain click prediction: from raw impression logs to a served ranker."""

__version__ = "0.1.0"
