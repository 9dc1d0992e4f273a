"""The documents: generated pages are those that the code gives, and what they link to exists."""
import importlib.util
import itertools
import re
from pathlib import Path

import pytest
from helpers import benchmark

from ding_cawr.algorithms import ALGORITHMS
from ding_cawr.config import PRESETS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), ROOT / 'benchmarks' / 'README.md'])


def test_settings_page_is_what_the_code_gives():
    path = ROOT / 'docs' / 'make_settings.py'
    spec = importlib.util.spec_from_file_location('make_settings', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding='utf-8') == module.page(), 'run python docs/make_settings.py'


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_linked_files_exist(document):
    targets = re.findall(r'\]\(([^)#\s]+)(?:#[^)]*)?\)', document.read_text(encoding='utf-8'))
    missing = [each for each in targets if '://' not in each and not (document.parent / each).exists()]
    assert not missing


def test_readme_names_every_preset():
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert [name for name in PRESETS if f'`{name}`' not in readme] == []


def test_the_api_names_every_algorithm_and_its_model():
    api = (ROOT / 'docs' / 'api.md').read_text(encoding='utf-8')
    names = [each for kind in ALGORITHMS.values() for each in (f'`{kind.name}`', kind.Model.__name__)]
    missing = [name for name in names if name not in api]
    assert not missing


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_waits_to_be_filled_in(document):
    lines = document.read_text(encoding='utf-8').splitlines()
    assert [line for line in lines if re.search(r'\b(TODO|TBD|FIXME|XXX)\b|^[A-Z]+$', line)] == []


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_have_rows_of_their_width_alone(document):
    lines = document.read_text(encoding='utf-8').splitlines()
    strange = []
    for number, line in enumerate(lines):
        if re.fullmatch(r'\|[ :|-]+\|', line):
            rows = itertools.takewhile(str.strip, lines[number + 1:])
            strange += [row for row in rows if len(re.findall(r'(?<!\\)\|', row)) != line.count('|')]
    assert strange == []


@pytest.mark.parametrize('name, sets', [('README.md', 'MAIN_SETS'), ('docs/results.md', None)])
def test_the_main_table_is_that_of_the_raw_lines(name, sets):
    evidence = benchmark('evidence')
    file = ROOT / 'benchmarks' / 'results' / 'evidence' / 'results.jsonl'
    table = evidence.main_table(evidence.PLAN, file, sets and getattr(evidence, sets))
    assert table in (ROOT / name).read_text(encoding='utf-8'), 'run python benchmarks/evidence.py --table'


def test_the_rules_table_has_the_scores_of_the_main_table():
    def rows(name: str, first: str) -> dict[str, dict[str, str]]:
        text = (ROOT / name).read_text(encoding='utf-8')
        lines = text[text.index(first):].split('\n\n')[0].splitlines()
        head, _, *cells = [[cell.strip(' *') for cell in line.strip('|').split('|')] for line in lines]
        return {row[0].removeprefix('bundled:'): dict(zip(head, row)) for row in cells}

    scores, rule = rows('docs/results.md', '| data | its episodes |'), rows('docs/data.md', '| set | scores of the')
    assert len(rule) == 10
    for name, row in rule.items():
        for policy in ('bc', 'bc_best', 'cawr'):
            if name != 'hopper-expert' or policy != 'cawr':  # a run of part f.
                assert row[policy] == scores[name][policy].split()[0], (name, policy)


@pytest.mark.parametrize('part, name', [
    ('b', 'docs/results.md'), ('k', 'docs/results.md'), ('l', 'docs/algorithms/a2pr.md')
])
def test_tables_of_one_seed_are_those_of_the_raw_lines(part, name):
    evidence = benchmark('evidence')
    file = ROOT / 'benchmarks' / 'results' / 'evidence' / 'results.jsonl'
    table = evidence.tables(evidence.PLAN, file)[part]
    assert table in (ROOT / name).read_text(encoding='utf-8'), 'run python benchmarks/evidence.py --table'
