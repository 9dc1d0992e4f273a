"""The command ``cawr bench``: measure training speed against a lower bound of its arithmetic."""
