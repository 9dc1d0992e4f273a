"""The command ``cawr bench``: how fast training is, beside the least that its arithmetic takes.

synthetic.py makes the data, parts.py the parts that are timed, pipeline.py runs DI-engine's loop so that it can be
timed from within, measure.py puts one run together, report.py judges it and says it.
"""
