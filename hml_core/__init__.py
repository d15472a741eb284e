"""Hard-mining loss and decoupled training for long-tailed image classification."""

__version__ = "0.1.0"
