"""blm: the data engine and trainer behind boundless embodied models."""

__version__ = "0.1.0"
