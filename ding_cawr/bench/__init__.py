"""The command ``cawr bench``: how fast training is, beside the least that its arithmetic takes."""
