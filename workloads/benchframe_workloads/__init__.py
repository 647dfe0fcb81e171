"""The workloads that come with benchframe, one module per family, and the recorded traces in ``data/``."""
