"""``algorithm='auto'``: the preset that a dataset asks for, by what its episodes look like.

``cawr data info`` answers from here without the algorithms, which wait for torch.
"""
from __future__ import annotations

from typing import NamedTuple

from ding_cawr.data.quality import Quality

#: The name that stands for the choice.
AUTO = 'auto'
#: The presets that it may stand for.
CHOICES = ('bc', 'bc_best', 'cawr')
#: The rule's numbers: behaviour cloning of all episodes where at least the share MOST of them is within NEAR of the
#: best one. MOST lies above the 49% of halfcheetah-medium-expert and below the 65% of hopper-expert (docs/data.md).
NEAR, MOST = 0.1, 0.6
#: Else cawr, where the standard deviation of the returns is below this share of their mean: no episode is much better
#: than the others, and good actions are spread over all of them. It lies above the 0.21 of hopper-medium:dope and below
#: the 0.44 of halfcheetah-medium-expert.
LEAST_SPREAD = 0.3
#: Least number of whole episodes by which their spread is judged.
FEWEST = 10


class Choice(NamedTuple):
    """A preset, and why it was taken: a part of a sentence, with the numbers."""
    algorithm: str
    reason: str


def choose(quality: Quality | None) -> Choice:
    """Return the preset for data of a quality, None being unknown."""
    episodes = 0 if quality is None else len(quality.returns)
    if episodes < FEWEST:
        return Choice('cawr', f'the data tell {episodes} whole episodes apart, fewer than {FEWEST}, so that the '
                              'spread of their returns is unknown')
    share = quality.near_best(NEAR)
    told = (f'{share:.1%} of the {episodes} episodes have a return within {NEAR:.0%} of the best, '
            f'{quality.returns.max():.1f}, and ')
    if share >= MOST:
        return Choice('bc', f'{told}at {MOST:.0%} or more there is little to select')
    spread = quality.spread
    if spread < LEAST_SPREAD:
        return Choice('cawr', f'{told}their standard deviation is {spread:.2f} of their mean: below {LEAST_SPREAD} no '
                              'episode is much better than the others')
    return Choice('bc_best', f'{told}their standard deviation is {spread:.2f} of their mean: there are better and '
                             'worse episodes to select from')
