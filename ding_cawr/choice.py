"""``algorithm='auto'``: the preset that a dataset asks for, by what its episodes look like.

``cawr data info`` answers from here without the algorithms, which wait for torch.
"""
from __future__ import annotations

from typing import NamedTuple

from ding_cawr.data.quality import Quality

#: The name that stands for the choice.
AUTO = 'auto'
#: The rule's numbers: behaviour cloning where at least the share MOST of the episodes is within NEAR of the best one.
#: Fixed on stand-ins and the bundled set (docs/data.md): between the 49% of halfcheetah-medium-expert, where cawr is
#: ahead, with the 57% of walker2d-medium, where both are level, and the 65% of hopper-expert, not measured yet.
NEAR, MOST = 0.1, 0.6


class Choice(NamedTuple):
    """A preset, and why it was taken: a part of a sentence, with the numbers."""
    algorithm: str
    reason: str


def choose(quality: Quality | None) -> Choice:
    """Return the preset for data of a quality, None being unknown."""
    if quality is None:
        return Choice('cawr', 'the data have no whole episodes that could be told apart, so that their returns are '
                              'unknown')
    share = quality.near_best(NEAR)
    told = (f'{share:.1%} of the {len(quality.values)} episodes have a {quality.unit} within {NEAR:.0%} of the best, '
            f'{quality.best:.1f}, and ')
    if share >= MOST:
        return Choice('bc', f'{told}at {MOST:.0%} or more there is little to select')
    return Choice('cawr', f'{told}below {MOST:.0%} there are better and worse episodes to select from')
