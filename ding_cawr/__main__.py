"""``python -m ding_cawr``: the same as the command ``cawr``."""
from ding_cawr.cli import cawr

if __name__ == '__main__':
    cawr(prog_name='cawr')
