"""Rules of the layout that import-linter cannot see: only algorithms/ knows the algorithms by name."""
import ast
from pathlib import Path

import pytest

import ding_cawr
from ding_cawr.algorithms import ALGORITHMS

PACKAGE = Path(ding_cawr.__file__).parent
#: Modules in which 'cawr' is the command, and the public default of make_config.
COMMAND = ('config.py', '__init__.py', '__main__.py', 'engine/collect.py', 'compare/figures.py')
#: The comparisons of CAWR's paper, which are about its presets.
PRESETS = ('compare/presets.py', 'compare/paper.py')
#: The rule that chooses between presets, from which `cawr data info` answers without the algorithms.
CHOICE = ('choice.py', )
OUTSIDE = [path for path in sorted(PACKAGE.rglob('*.py')) if 'algorithms' not in path.relative_to(PACKAGE).parts
           and str(path.relative_to(PACKAGE)) not in (*PRESETS, *CHOICE)]


#: Modules that name policies of DI-engine's, of which one has the name of a preset.
DI_ENGINES = {'compare/policies.py': {'iql'}}


def names_in(source: str) -> set[str]:
    """The texts of a module that are the name of an algorithm or a preset."""
    names = {name for algorithm in ALGORITHMS.values() for name in (algorithm.name, *algorithm.PRESETS)}
    return {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)
            and isinstance(node.value, str) and node.value in names}


@pytest.mark.parametrize('path', OUTSIDE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_outside_algorithms_names_one(path):
    allowed = {'cawr'} if str(path.relative_to(PACKAGE)) in COMMAND else set()
    allowed |= DI_ENGINES.get(str(path.relative_to(PACKAGE)), set())
    found = names_in(path.read_text()) - allowed
    assert not found, f'{path} names {found}; presets and settings belong to algorithms/'


def test_a_name_would_be_found():
    assert names_in("policy = 'cawr'") == {'cawr'}
