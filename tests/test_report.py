"""``cawr report``: tables, figures and refusals, from results made for the purpose."""
from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import pytest
from helpers import click_runner

from ding_cawr.cli import cawr
from ding_cawr.compare import document, figures, gathering, paper, sections
from ding_cawr.compare.results import IDENTITY, append
from ding_cawr.compare.statistics import PROTOCOLS, Spread

HOPPER, WALKER = 'hopper-medium-v2', 'walker2d-medium-v2'
VERSIONS = {'python': '3.11.7', 'ding_cawr': '0.1.0', 'torch': '2.6.0', 'cuda': None}
MACHINE = {'cpu': 'Abacus 9000', 'cores': 2, 'threads': 1, 'gpu': None}
ACTION = dict(columns='action', rate=0.3, scale=1.0, seed=0)
ENDINGS = ('png', 'svg')


def run_lines(policy='cawr', seed=0, means=(1.0, 2.0, 6.0), dataset=HOPPER, scored=True, **about) -> list[dict]:
    """The lines of a run whose evaluations, of two episodes every 100 iterations, have these means."""
    common = dict(
        kind='evaluation', dataset=dataset, dataset_sha256='0123456789abcdef' * 4, origin='stand-in', env_id=dataset,
        corruption=None, policy=policy, policy_source=f'what {policy} is', settings=dict(type='cawr', learn={}),
        seed=seed, iterations=100 * len(means), eval_freq=100, episodes=2, preset=None, versions=VERSIONS,
        behaviour_score=44.25 if scored else None, machine=MACHINE, evaluation_seconds=1.0,
        time='2025-01-01T00:00:00+00:00',
    )
    common.update(about)
    about = {name: common[name] for name in (*IDENTITY, 'dataset', 'preset')}
    common['run'] = json.dumps(about)
    lines = []
    for number, mean in enumerate(means, 1):
        values = [mean - 1, mean + 1]
        scores, returns = (values, [30 * value for value in values]) if scored else (None, values)
        at = dict(iteration=100 * number, seconds=2.0 * number, iterations_per_second=50.0)
        lines.append({**common, **at, 'scores': scores, 'returns': returns})
    return lines


def failure(**about) -> dict:
    line = {name: value for name, value in run_lines(**about)[0].items() if name in (*IDENTITY, 'dataset', 'preset')}
    return {**line, 'kind': 'failure', 'error': 'ValueError: 1 < 2 & so on', 'log': '/runs/x/log.txt', 'time': 'then'}


@pytest.fixture
def results(tmp_path):
    """``results(*runs, name='a') -> Path`` of a folder with a results.jsonl that holds these lists of lines."""
    def make(*runs, name='a'):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        append(folder / 'results.jsonl', [line for lines in runs for line in lines])
        return folder

    return make


def report_of(*paths) -> document.Document:
    return sections.report(gathering.gather(paths))


def tables(report) -> dict[str, document.ReportTable]:
    """Tables by their titles; every title is used once."""
    found = {table.title: table for table in report.tables}
    assert len(found) == len(report.tables)
    return found


def table(report, start: str) -> document.ReportTable:
    """The table whose title starts so."""
    found = tables(report)
    matching = [start] if start in found else [title for title in found if title.startswith(start)]
    assert len(matching) == 1, list(found)
    return found[matching[0]]


def cells(table) -> list[list[str]]:
    return table.cells.values.tolist()


def captions(report) -> dict[str, str]:
    """Captions of the figures by the names of their files."""
    return {name: caption for caption, name in re.findall(r'!\[(.*)\]\(figures/(.*)\.png\)', report.as_markdown())}


def headings(report) -> list[str]:
    return [part.removeprefix('## ') for part in report.parts if part.startswith('## ')]


def invoke(*arguments):
    return click_runner().invoke(cawr, ['report', *map(str, arguments)])


def error(result) -> str:
    """The message of a failed command: one line, and nothing on stdout."""
    assert result.exit_code == 1 and result.stdout == ''
    assert result.stderr.startswith('Error: ') and result.stderr.count('\n') == 1
    return result.stderr


# Scores.


def test_three_protocols_side_by_side(results):
    folder = results(run_lines(seed=0), run_lines(seed=4, means=(3.0, 10.0, 8.0)), run_lines('bc', seed=1))
    main = table(report_of(folder), 'Normalized scores')
    bc, cawr_row = main.rows
    assert cawr_row == {
        'dataset': HOPPER, 'policy': 'cawr', 'seeds': '0, 4', 'behaviour score': 44.25,
        'last evaluation': Spread(7.0, 1.0, 2), 'mean of the last ten': Spread(5.0, 2.0, 2),
        'best so far': Spread(8.0, 2.0, 2),
    }
    assert bc['last evaluation'] == Spread(6.0, None, 1)
    assert cells(main)[1] == [HOPPER, 'cawr', '0, 4', '7.0 ± 1.0', '5.0 ± 2.0', '8.0 ± 2.0', '44.2']
    assert cells(main)[0][3] == '6.0'
    notes = ' '.join(main.notes)
    assert ('seeds 1 of bc, seeds 0, 4 of cawr; 2 episodes an evaluation; 3 evaluations a run, one every 100 of 300 '
            'iterations') in notes
    assert '"mean of the last ten" is over all of them' in notes


def test_last_ten_are_the_last_ten(results):
    main = table(report_of(results(run_lines(means=[100.0, *[1.0] * 9, 11.0]))), 'Normalized scores')
    assert main.rows[0]['mean of the last ten'].mean == 2.0
    assert 'over all' not in ' '.join(main.notes) and '11 evaluations' in ' '.join(main.notes)


def test_what_was_run(results):
    folder = results(run_lines(), run_lines('bc', preset='quick', machine={**MACHINE, 'cpu': 'Other'}),
                     run_lines(corruption=ACTION))
    report = report_of(folder)
    assert table(report, 'Datasets').rows == [{
        'dataset': HOPPER, 'origin': 'stand-in', 'sha256': '0123456789ab', 'environment': HOPPER,
        'behaviour score': 44.25, 'corrupted as well': 'action 0.3 (scale 1, seed 0)'
    }]
    assert table(report, 'Runs on each').rows == [{
        'dataset': HOPPER, 'runs': 3, 'seeds': '0', 'iterations': 300, 'evaluated every': 100,
        'episodes an evaluation': 2
    }]
    bc, ours = table(report, 'Policies').rows
    assert bc['stands for'] == 'what bc is' and bc['preset'] == 'quick' and bc['runs'] == 1
    assert ours['policy'] == 'cawr' and ours['runs'] == 2 and ours['iterations/s'] == Spread(50.0, 0.0, 2)
    machines = {row['machine']: row['what'] for row in table(report, 'Machines').rows}
    assert 'Other' in machines[bc['machine']] and 'Abacus 9000' in machines[ours['machine']]
    assert table(report, 'Machines').rows[0]['versions'] == 'ding_cawr 0.1.0, python 3.11.7, torch 2.6.0'


def test_every_run_and_its_settings(results):
    about = dict(settings=dict(type='cawr', learn=dict(temperature=0.5, batch_size=7)))
    other = dict(dataset=WALKER, settings=dict(type='cawr', learn=dict(temperature=2.0, batch_size=7)))
    report = report_of(results(run_lines(**about), run_lines(seed=1, **about), run_lines(**other)))
    assert [(row['dataset'], row['seed'], row['last evaluation']) for row in table(report, 'Runs').rows] == [
        (HOPPER, 0, 6.0), (HOPPER, 1, 6.0), (WALKER, 0, 6.0)
    ]
    settings = report.as_markdown().partition('<summary>cawr: what cawr is</summary>')[2]
    first, second = map(json.loads, re.findall(r'```json\n(.*?)```', settings, re.DOTALL))
    assert first == about['settings'] and second == {'learn.temperature': 2.0}


def test_an_evaluation_that_is_there_twice_counts_once(results):
    lines = run_lines()
    first, second = results(lines), results(lines, name='b')
    report = report_of(first, second, first / 'results.jsonl')
    row = table(report, 'Runs').rows[0]
    assert row['evaluations'] == 3 and row['mean of the last ten'] == 3.0
    assert f'{first}/results.jsonl, {second}/results.jsonl. ' in report.parts[0]


# Aggregates.


def test_aggregates(results):
    def means(last):
        return 1.0, 2.0, float(last)

    runs = [run_lines('iql', seed, means(last)) for seed, last in enumerate((10, 20, 30, 40))]
    runs += [run_lines('cawr', seed, means(last)) for seed, last in enumerate((20, 30, 50, 99))]
    report = report_of(results(*runs))
    middle = table(report, 'Interquartile mean')
    ours, iql = middle.rows
    assert (ours['policy'], ours['datasets'], ours['runs']) == ('cawr', 1, 4)
    assert ours['last evaluation'].value == 40.0 and iql['last evaluation'].value == 25.0
    assert 20 <= ours['last evaluation'].low < 40 < ours['last evaluation'].high <= 99
    assert re.fullmatch(r'40\.0 \[\d\d\.\d, \d\d\.\d\]', cells(middle)[0][3])
    better = table(report, 'Probability of improvement over iql')
    assert [row['policy'] for row in better.rows] == ['cawr']
    assert better.rows[0]['last evaluation'].value == (1.5 + 2.5 + 4 + 4) / 16
    assert re.fullmatch(r'0\.75 \[0\.\d\d, 1\.00\]', cells(better)[0][3])
    assert any('seeds 0, 1, 2, 3; 2 episodes' in note for note in better.notes)


def test_one_run_has_no_interval(results):
    report = report_of(results(run_lines(), run_lines('iql')))
    assert cells(table(report, 'Interquartile mean'))[0][3] == '6.0 [-]'
    assert cells(table(report, 'Probability'))[0][3] == '0.50 [-]'


def test_no_improvement_without_iql(results):
    assert not any('improvement' in title for title in tables(report_of(results(run_lines(), run_lines('bc')))))


def test_aggregates_are_over_the_datasets_that_all_policies_have(results):
    folder = results(run_lines(), run_lines('bc'), run_lines(dataset=WALKER, means=(0.0, 0.0, 1000.0)))
    middle = table(report_of(folder), 'Interquartile mean')
    assert [row['last evaluation'].value for row in middle.rows] == [6.0, 6.0]
    assert f'Over {HOPPER}; left out, since not every policy has a finished run there: {WALKER}.' in middle.notes
    apart = report_of(results(run_lines(), run_lines('bc', dataset=WALKER), name='b'))
    assert 'No aggregate' in apart.as_markdown()


# Whose data.


def test_the_papers_scores_stand_beside_d4rls_data_alone(results):
    mine = dict(dataset=WALKER, origin='D4RL')
    folder = results(run_lines('bc', **mine), run_lines('iql', **mine), run_lines('td3_bc', **mine), run_lines('bc'))
    report = report_of(folder)
    theirs, stand_in = (table(report, f'Normalized scores{mark}') for mark in ('', " (stand-in, not D4RL's scores)"))
    assert [row[paper.MARK] for row in theirs.rows] == ['81.01 ± 1.92 (BC)', '78.30 (IQL (paper))', None]
    assert {row['dataset'] for row in theirs.rows} == {WALKER}
    assert {row['dataset'] for row in stand_in.rows} == {HOPPER} and paper.MARK not in stand_in.frame.columns.tolist()
    assert ["D4RL's datasets", 'Stand-ins for D4RL'] == headings(report)[1:3]
    for title, each in tables(report).items():
        if {HOPPER, WALKER} <= {row.get('dataset') for row in each.rows}:
            assert title in ('Datasets', 'Runs on each', 'Runs')


@pytest.mark.parametrize('origin', ['stand-in', 'bundled', 'file'])
def test_other_data_are_marked(results, origin):
    folder = results(run_lines('bc', origin=origin), run_lines('l1+normal', origin=origin))
    report = report_of(folder)
    assert paper.MARK not in report.as_markdown()
    assert "not D4RL's scores" in table(report, 'Normalized scores').title
    assert "not D4RL's scores" in table(report, 'Interquartile').title
    assert all("not D4RL's scores" in each for each in captions(report).values())


def test_without_scores_there_are_returns_and_no_aggregates(results):
    mine = dict(dataset='mine.hdf5', origin='file', env_id='Pendulum-v1', scored=False)
    report = report_of(results(run_lines(**mine), run_lines('iql', **mine)))
    returns = table(report, 'Returns, since no score is defined in these environments')
    assert returns.rows[0]['last evaluation'].mean == 6.0 and 'behaviour score' not in returns.frame.columns.tolist()
    assert not any('Interquartile' in title for title in tables(report))
    figure = report.figures['iterations_mine.hdf5']
    assert figure._supylabel.get_text() == 'return'


# Corrupted data.


def test_corrupted_data_have_tables_of_their_own(results):
    def corrupted(rate, **options):
        return dict(corruption={**ACTION, 'rate': rate, **options})

    folder = results(
        run_lines(), run_lines(seed=1, means=(1.0, 2.0, 8.0)), run_lines('bc'),
        run_lines(means=(1.0, 2.0, 3.0), **corrupted(0.5)), run_lines(means=(1.0, 2.0, 4.0), **corrupted(0.25)),
        run_lines('bc', means=(5.0, 2.0, 3.0), **corrupted(0.5)),
        run_lines(means=(1.0, 2.0, 5.0), **corrupted(0.25, columns=['obs', 'reward'])),
    )
    report = report_of(folder)
    actions = table(report, f'{HOPPER}: action corrupted, scale 1, seed 0')
    assert actions.frame.columns.tolist() == ['protocol', 'policy', 'rate 0', 'rate 0.25', 'rate 0.5']
    rows = {(row['protocol'], row['policy']): row for row in actions.rows}
    assert set(rows) == {(protocol, policy) for protocol in PROTOCOLS for policy in ('bc', 'cawr')}
    ours = rows['last evaluation', 'cawr']
    assert (ours['rate 0'], ours['rate 0.25'].mean, ours['rate 0.5'].mean) == (Spread(7.0, 1.0, 2), 4.0, 3.0)
    assert rows['last evaluation', 'bc']['rate 0.25'] is None
    assert rows['best so far', 'bc']['rate 0.5'].mean == 5.0
    assert table(report, f'{HOPPER}: obs+reward corrupted').rows[0]['rate 0.25'].mean == 5.0
    assert {row['policy']: row['seeds'] for row in table(report, 'Normalized').rows} == {'bc': '0', 'cawr': '0, 1'}
    figure = report.figures['corruption_hopper_medium_v2_action_1_0']
    assert [axes.get_title() for axes in figure.axes] == list(PROTOCOLS)
    legend, = figure.legends
    assert [text.get_text() for text in legend.texts] == ['bc', 'cawr']


def test_corrupted_data_alone(results):
    report = report_of(results(run_lines(corruption=ACTION)))
    assert table(report, f'{HOPPER}: action').frame.columns.tolist()[2:] == ['rate 0.3']
    assert 'Corrupted datasets' in headings(report) and not any('Normalized' in title for title in tables(report))


# The paper's tables.


def form(loss, priority, preset='paper-table1', frozen=True, seed=0, last=6.0, **about):
    """A run of a preset."""
    critics = {'pretrained_critics': 'those of critics, of the same seed'} if frozen else {}
    learn = dict(policy_loss=loss, priority=priority, **critics)
    named = priority if isinstance(priority, str) else priority['type']
    name = about.pop('policy', f'{loss}+{named}{priority.get("quantile", "") if isinstance(priority, dict) else ""}')
    return run_lines(name, seed, (1.0, 2.0, last), settings=dict(type='cawr', learn=learn), preset=preset, **about)


def table_1_runs(**about) -> list:
    return [
        form('l2', 'none', last=50.0, frozen=False, policy='critics', **about), form('l2', 'none', last=10.0, **about),
        form('flat', dict(type='standard', exponent=0.6), last=20.0, **about),
        form('l1', dict(type='quantile', quantile=0.3), last=30.0, **about),
        form(dict(type='huber', kappa=0.2), 'none', last=40.0, policy='huber+none', **about),
    ]


def test_table_1(results):
    report = report_of(results(*table_1_runs(origin='D4RL'), form('l2', 'none', seed=1, last=14.0, origin='D4RL')))
    grid = table(report, f'Table 1 on {HOPPER}, best so far')
    assert grid.frame.columns.tolist() == ['priority', 'l2', 'l1', 'huber', 'flat']
    none, standard, quantile = grid.rows
    assert none == {'priority': 'none', 'l2': Spread(12.0, 2.0, 2), 'l1': None, 'huber': Spread(40.0, None, 1),
                    'flat': None}
    assert standard['priority'] == 'standard' and standard['flat'].mean == 20.0
    assert quantile['priority'] == 'quantile 0.3' and quantile['l1'].mean == 30.0
    assert all(f'Table 1 on {HOPPER}, {protocol}' in tables(report) for protocol in PROTOCOLS)
    theirs = table(report, "The paper's Table 1 (D4RL v2, paper)")
    assert theirs.rows[0]['flat'] == Spread(76.23, 8.82, 3) and len(theirs.rows) == 7
    assert cells(theirs)[2] == ['standard', '77.49 ± 17.72', '80.75 ± 19.89', '-', '68.36 ± 19.26', '96.00 ± 7.24']
    assert [row['policy'] for row in table(report, 'Beside the grid').rows] == ['critics']
    assert not any('Normalized' in title for title in tables(report))
    assert 'table_1_iterations_hopper_medium_v2' in report.figures


def test_table_1_on_other_data_has_no_table_of_the_paper_beside_it(results):
    report = report_of(results(*table_1_runs()))
    assert f"Table 1 on {HOPPER}, best so far (stand-in, not D4RL's scores)" in report.as_markdown()
    assert not any(paper.MARK in title for title in tables(report))


def test_table_1_is_drawn_beside_the_papers_which_is_marked(results):
    *ours, theirs, scale = report_of(results(*table_1_runs())).figures['table_1_heat_map_hopper_medium_v2'].axes
    assert [axes.get_title() for axes in ours] == [
        "mean of the last ten (stand-in, not D4RL's scores)", "best so far (stand-in, not D4RL's scores)"
    ]
    assert theirs.get_title() == 'best so far (D4RL v2, paper)' and scale.get_ylabel() == 'normalized score'
    drawn = {(text.get_position(), text.get_text()) for text in theirs.texts}
    assert len(drawn) == 5 + 6 * 4 and ((4, 2), '96') in drawn  # flat with the standard priority; huber has one row
    means, best = ([text.get_text() for text in axes.texts] for axes in ours)
    assert sorted(best) == ['10', '20', '30', '40']  # l2+none, flat+standard, l1+quantile 0.3, huber+none
    assert sorted(means) == ['11', '14', '4', '8']  # each with 1 and 2 before its last


def test_table_1_without_scores_has_no_heat_map(results):
    report = report_of(results(*table_1_runs(scored=False)))
    assert not any('heat_map' in name for name in report.figures)


def test_table_1_refuses_two_policies_in_one_cell(results):
    folder = results(*table_1_runs(), form('l2', 'none', policy='other'))
    with pytest.raises(ValueError, match="two policies of preset paper-table1.*'other'.*'l2'.*'none'"):
        report_of(folder)


def test_table_2(results):
    mine = dict(preset='paper-table2', frozen=False, origin='D4RL')
    runs = [form('l1', 'normal', last=80.0, **mine), form('l2', 'none', last=70.0, **mine),
            form('l2', 'none', policy='bc', last=60.0, **mine),
            form('l1', 'normal', last=90.0, dataset='hopper-expert-v2', **mine),
            # Of another preset, in whose results the same run was found.
            form('l2', 'none', seed=1, last=74.0, **{**mine, 'preset': 'corruption'})]
    report = report_of(results(*runs))
    ours = table(report, 'Table 2, last evaluation')
    assert ours.frame.columns.tolist() == ['dataset', 'bc', 'l2+none', 'l1+normal']
    expert, medium = ours.rows
    assert expert['dataset'] == 'hopper-expert-v2' and expert['bc'] is None and expert['l1+normal'].mean == 90.0
    assert medium['l2+none'] == Spread(72.0, 2.0, 2)
    theirs = table(report, "The paper's Table 2 (D4RL v2, paper)")
    assert theirs.frame.columns.tolist() == ['dataset', *paper.TABLE_2_COLUMNS]
    assert re.search(r'\n\|:?-+\|(-+:\|){5}\n', theirs.markdown())
    assert cells(theirs) == [
        ['hopper-expert-v2', '111.47 ± 0.57', '-', '112.21 ± 1.17', '110.47 ± 5.23', '111.34 ± 5.19'],
        [HOPPER, '61.80 ± 11.91', '66.30', '61.09 ± 13.43', '70.68 ± 19.44', '85.52 ± 17.48'],
    ]
    stand_in = report_of(results(form('l1', 'normal', preset='paper-table2'), name='b'))
    assert "Table 2, best so far (stand-in, not D4RL's scores)" in tables(stand_in)
    assert paper.MARK not in stand_in.as_markdown()


def test_the_papers_numbers():
    assert len(paper.TABLE_2) == 9 and sum(map(len, paper.TABLE_2.values())) == 9 * 5 - 3
    assert sum(map(len, paper.TABLE_1.values())) == 7 * 4 + 1
    assert paper.TABLE_2['halfcheetah-expert-v2']['L1+Normal'] == Spread(90.89, 10.67, 3)
    assert paper.TABLE_2['walker2d-medium-v2']['IQL (paper)'] == Spread(78.3, None, 1)
    assert set(paper.COUNTERPARTS.values()) <= set(paper.TABLE_2_COLUMNS)


def test_a_name_that_stood_for_two_things_is_two_policies(results):
    first, second = (
        run_lines('l1+normal', policy_source=source, settings=dict(a=source), preset=preset, means=(1.0, 2.0, last))
        for source, preset, last in (('this', 'quick', 3.0), ('that', None, 5.0))
    )
    rows = table(report_of(results(first, second)), 'Normalized').rows
    assert {row['policy']: row['last evaluation'].mean for row in rows} == {
        'l1+normal (quick)': 3.0, 'l1+normal (no preset)': 5.0
    }
    same = [run_lines('cawr', policy_source=source, settings=dict(source=source)) for source in ('this', 'that')]
    rows = table(report_of(results(*same, name='b')), 'Normalized').rows
    assert [row['policy'] for row in rows] == ['cawr (1)', 'cawr (2)']


# What did not finish.


def test_failures_unfinished_runs_and_broken_lines(results):
    failures = [failure(policy='td3_bc', seed=3), failure(seed=0)]
    folder = results(run_lines(), failures, run_lines('bc', iterations=900))
    with open(folder / 'results.jsonl', 'a') as file:
        file.write('{"kind": "evaluation", "dataset": "hop')
    result = invoke(folder)
    assert result.exit_code == 0
    assert '1 line could not be read and was left out' in result.stderr
    assert '1 finished, 1 unfinished, 1 failed' in result.stdout
    markdown = (folder / 'report' / 'report.md').read_text()
    assert re.search(r'Warning: 1 line could not be read and was left out \(.*results.jsonl, line \d+\)\.', markdown)
    report = report_of(folder)
    assert table(report, 'Failed runs').rows == [{
        'dataset': HOPPER, 'corruption': None, 'policy': 'td3_bc', 'seed': 3, 'error': 'ValueError: 1 < 2 & so on',
        'log': '/runs/x/log.txt', 'time': 'then'
    }]  # that of cawr was made good
    unfinished = table(report, 'Runs that have not come').rows[0]
    assert (unfinished['policy'], unfinished['at iteration'], unfinished['of']) == ('bc', 300, 900)
    assert '/runs/x/log.txt' in markdown and 'bc' not in {row['policy'] for row in table(report, 'Normalized').rows}


def test_nothing_finished_is_still_reported(results):
    folder = results([failure()])
    result = invoke(folder)
    assert result.exit_code == 0 and 'no run has finished' in result.stderr
    markdown = (folder / 'report' / 'report.md').read_text()
    assert 'no run has finished' in markdown and 'ValueError: 1 &lt; 2 &amp; so on' in markdown
    assert 'Normalized' not in markdown


@pytest.mark.parametrize('content', ['', '\n\n', 'no JSON\n', '{"kind": "other"}\n'])
def test_nothing_at_all_is_an_error(tmp_path, content):
    file = tmp_path / 'results.jsonl'
    file.write_text(content)
    assert f'{file}: nothing to report' in error(invoke(tmp_path))
    assert [each.name for each in tmp_path.iterdir()] == ['results.jsonl']


def test_missing_files(tmp_path):
    assert f"there is no file '{tmp_path}/none.jsonl'" in error(invoke(tmp_path / 'none.jsonl'))
    assert f"the folder '{tmp_path}' holds no results.jsonl" in error(invoke(tmp_path))
    assert invoke().exit_code == 2


# Refusals.


@pytest.mark.parametrize('name, value', [
    ('dataset_sha256', 'f' * 64), ('origin', 'D4RL'), ('env_id', 'Hopper-v4'), ('iterations', 200), ('eval_freq', 50),
    ('episodes', 10),
])
def test_refuses_to_mix(results, name, value):
    first, second = results(run_lines()), results(run_lines('iql', **{name: value}), name='b')
    message = error(invoke(first, second, '--out', first / 'new'))
    assert f'{HOPPER}: {name} is ' in message and repr(value) in message
    assert f'{first}/results.jsonl and {value!r} in {second}/results.jsonl' in message
    assert 'report the files separately' in message
    assert not (first / 'new').exists()


def test_refuses_to_mix_settings_under_one_name(results):
    runs = [run_lines(seed=seed, settings=dict(learn=dict(temperature=seed + 0.5))) for seed in range(2)]
    message = error(invoke(results(*runs)))
    assert f"{HOPPER}, policy 'cawr': settings.learn.temperature is 0.5" in message and 'and 1.5' in message


def test_corrupted_runs_are_not_mixed_with_shorter_clean_ones(results):
    assert 'iterations is' in error(invoke(results(run_lines(), run_lines(corruption=ACTION, iterations=200))))


def test_an_origin_that_there_is_not(results):
    assert "origin is 'elsewhere'" in error(invoke(results(run_lines(origin='elsewhere'))))


def test_other_datasets_may_differ(results):
    folder = results(run_lines(), run_lines(dataset=WALKER, means=[1.0] * 5, episodes=1, dataset_sha256='0' * 64))
    notes = table(report_of(folder), 'Normalized').notes
    assert sum('an evaluation' in note for note in notes) == 2


# The files.


class Checker(HTMLParser):
    """Notes addresses and text, and that every element is closed by its own end."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ('src', 'href')]
        if tag not in ('meta', 'img', 'br'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


STRANGE = '/data/<b>a</b> & |so_on|*.hdf5'


@pytest.fixture(scope='module')
def written(tmp_path_factory) -> Path:
    """A report by the command, with three seeds, a failure, a corrupted dataset and names that want escaping."""
    folder = tmp_path_factory.mktemp('written')
    for policy, up in (('cawr', 5.0), ('iql', 0.0)):
        for seed in range(3):
            append(folder / 'results.jsonl', run_lines(policy, seed, (1.0 + seed, 2.0 + up, 6.0 + up)))
    append(folder / 'results.jsonl', run_lines('<i>bc</i>', dataset=STRANGE, origin='file'))
    append(folder / 'results.jsonl', [*run_lines(corruption=ACTION), failure(policy='<script>', seed=3)])
    result = invoke(folder, '--json')
    assert result.exit_code == 0, result.output
    (folder / 'report.json').write_text(result.stdout)
    return folder


def test_what_is_written(written):
    assert {each.name for each in written.iterdir()} == {'results.jsonl', 'report', 'report.json'}
    files = {each.name for each in (written / 'report').iterdir()}
    assert files == {'report.md', 'report.html', 'report.json', 'figures'}
    names = {each.name for each in (written / 'report' / 'figures').iterdir()}
    hopper = ('aggregate_stand_in', 'iterations_hopper_medium_v2', 'seconds_hopper_medium_v2',
              'corruption_hopper_medium_v2_action_1_0')
    assert {f'{name}.{ending}' for name in hopper for ending in ENDINGS} <= names


def test_figures_of_an_earlier_report_do_not_stay(results, tmp_path):
    figures = tmp_path / 'report' / 'figures'
    for dataset in ('first', 'second'):
        append(tmp_path / f'{dataset}.jsonl', run_lines(dataset=f'{dataset}.npz', origin='file'))
        report_of(tmp_path / f'{dataset}.jsonl').write(tmp_path / 'report')
        (figures / 'mine.txt').write_text('mine')
    assert {path.stem for path in figures.iterdir() if 'first' in path.name} == set()
    assert any('second' in path.name for path in figures.iterdir())
    assert (figures / 'mine.txt').is_file()


def test_figures_are_pictures(written):
    for path in (written / 'report' / 'figures').iterdir():
        if path.suffix == '.png':
            pixels = matplotlib.image.imread(path)
            assert min(pixels.shape[:2]) > 200 and pixels[..., :3].std() > 0.02
        else:
            assert len(list(ElementTree.parse(path).iter('{http://www.w3.org/2000/svg}path'))) > 20


def test_html(written):
    text = (written / 'report' / 'report.html').read_text()
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    shown = ' '.join(checker.text)
    assert STRANGE in shown and '<i>bc</i>' in shown and '<script>' in shown
    assert '<i>bc' not in text and '<script' not in text and '<b>a' not in text
    assert '11.0 ± 0.0' in shown and 'Abacus 9000' in shown and '0123456789ab' in shown
    # Nothing of the Markdown is left, within what is collapsed neither.
    assert not re.search(r'\*\*|```|\| -|##', shown) and '"type": "cawr"' in shown
    assert '<td style="text-align: right;">11.0 ± 0.0</td>' in text
    anchors = [each[1:] for each in checker.addresses if each.startswith('#')]
    assert anchors and all(f'id="{anchor}"' in text for anchor in anchors)
    data = [each for each in checker.addresses if not each.startswith('#')]
    figures = list((written / 'report' / 'figures').glob('*.svg'))
    assert len(data) == len(figures) and all(each.startswith('data:image/svg+xml;base64,') for each in data)
    contents = {base64.b64decode(each.partition(',')[2]) for each in data}
    assert contents == {each.read_bytes() for each in figures}
    assert 'prefers-color-scheme: dark' in text and 'overflow-x: auto' in text


def test_markdown(written):
    text = (written / 'report' / 'report.md').read_text()
    lines = [re.sub(' +', ' ', line) for line in text.splitlines()]
    assert f'| {HOPPER} | cawr | 0, 1, 2 | 11.0 ± 0.0 | 6.7 ± 0.3 | 11.0 ± 0.0 | 44.2 |' in lines
    assert 'policy | seeds | last evaluation | mean of the last ten | best so far | behaviour score' in ' '.join(lines)
    assert '/data/&lt;b&gt;a&lt;/b&gt; &amp; \\|so_on\\|\\*.hdf5' in text
    assert set(re.findall(r'(?<!\\)</?\w+', text)) == {'<details', '</details', '<summary', '</summary'}
    for name in re.findall(r'\]\((figures/.+?)\)', text):
        assert (written / 'report' / name).is_file()
    assert text.count('<details markdown="1">') == text.count('</details>') == 1 + 3
    assert '```json\n' in text and 'what iql is' in text


def test_json(written):
    told = json.loads((written / 'report.json').read_text())
    assert told['report'] == str(written / 'report' / 'report.html')
    assert (told['finished'], told['unfinished'], told['failed'], told['skipped_lines']) == (8, 0, 1, 0)
    assert told['results'] == [str(written / 'results.jsonl')]
    found = {each['title']: each for each in told['tables']}
    main = found["Normalized scores (stand-in, not D4RL's scores)"]
    assert main['rows'][0]['last evaluation'] == {'mean': 11.0, 'std': 0.0, 'n': 3} and main['notes']
    assert json.loads((written / 'report' / 'report.json').read_text()) == told['tables']
    assert {row['policy']: row['best so far'] for row in found['Runs']['rows'] if not row['corruption']} == {
        'cawr': 11.0, 'iql': 6.0, '<i>bc</i>': 6.0
    }


def test_json_has_no_nan(results):
    result = invoke(results(run_lines(means=(1.0, 2.0, float('nan')))), '--json')
    assert result.exit_code == 0

    def refuse(word):
        raise AssertionError(word)

    json.loads(result.stdout, parse_constant=refuse)


def test_the_same_results_give_the_same_report(written, tmp_path):
    assert invoke(written, '--out', tmp_path / 'again').exit_code == 0
    files = [each.relative_to(written / 'report') for each in (written / 'report').rglob('*.*')]
    for file in files:
        assert (tmp_path / 'again' / file).read_bytes() == (written / 'report' / file).read_bytes()


def test_lines_bands_and_the_behaviour(results):
    report = report_of(results(run_lines(seed=0), run_lines(seed=1, means=(3.0, 2.0, 8.0)), run_lines('iql')))
    assert '1 to 2 seeds, 2 episodes an evaluation' in captions(report)['iterations_hopper_medium_v2']
    axes = report.figures['iterations_hopper_medium_v2'].axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ['cawr', 'iql', "dataset's episodes"]
    assert list(lines['cawr'].get_xdata()) == [100, 200, 300] and list(lines['cawr'].get_ydata()) == [2.0, 2.0, 7.0]
    assert set(lines["dataset's episodes"].get_ydata()) == {44.25}
    assert len(axes.collections) == 1  # iql has one seed, so no band
    seconds = report.figures['seconds_hopper_medium_v2'].axes[0]
    assert list(seconds.lines[0].get_xdata()) == [2.0, 4.0, 6.0] and 's (' in seconds.get_xlabel()


def test_many_policies_are_drawn_loss_by_loss(results):
    runs = [run_lines(f'{loss}+{number}', settings=dict(learn=dict(policy_loss=loss)))
            for loss in ('l1', 'l2') for number in range(5)]
    few = report_of(results(*runs)).figures['iterations_hopper_medium_v2']
    many = report_of(results(*runs, run_lines('other'), name='b')).figures['iterations_hopper_medium_v2']
    assert len(few.axes) == 1
    assert [axes.get_title() for axes in many.axes] == [f'policy loss: {each}' for each in ('l1', 'l2', 'others')]


def test_every_policy_looks_different():
    looks = figures.styles(map(str, range(35)))
    assert len({(look['color'], look['linestyle']) for look in looks.values()}) == 35


def test_the_table_of_intervals_and_its_figure_say_the_same(results):
    report = report_of(results(*(run_lines(seed=seed, means=(1.0, 2.0, 4.0 * seed)) for seed in range(4))))
    estimate = table(report, 'Interquartile').rows[0]['last evaluation']
    axes = report.figures['aggregate_stand_in'].axes[0]
    (start, _), (end, _) = axes.collections[0].get_segments()[0]
    assert (start, end) == pytest.approx((estimate.low, estimate.high))
    assert axes.lines[0].get_xdata()[0] == pytest.approx(estimate.value)


def test_out_defaults_to_a_folder_beside_the_first(results):
    first, second = results(run_lines()), results(run_lines('bc'), name='b')
    assert invoke(first / 'results.jsonl', second).exit_code == 0
    assert (first / 'report' / 'report.html').is_file() and not (second / 'report').exists()


def test_a_report_is_replaced_file_by_file(results):
    folder = results([failure()])
    assert invoke(folder).exit_code == 0
    (folder / 'report' / 'mine.txt').write_text('keep')
    append(folder / 'results.jsonl', run_lines())
    assert invoke(folder).exit_code == 0
    assert 'Normalized scores' in (folder / 'report' / 'report.md').read_text()
    assert (folder / 'report' / 'mine.txt').read_text() == 'keep'


@pytest.mark.parametrize('breaks', ['render', 'write'])
def test_nothing_half_written_is_left(results, monkeypatch, breaks):
    folder = results(run_lines())
    assert invoke(folder).exit_code == 0
    before = {each: each.read_bytes() for each in folder.rglob('*.*') if each.is_file()}
    append(folder / 'results.jsonl', run_lines('bc'))
    before[folder / 'results.jsonl'] = (folder / 'results.jsonl').read_bytes()

    def fail(self, *arguments):
        raise OSError('no space left on device')

    if breaks == 'render':
        monkeypatch.setattr(figures, 'render', fail)
    else:
        write, calls = Path.write_bytes, iter(range(100))
        monkeypatch.setattr(Path, 'write_bytes', lambda *args: write(*args) if next(calls) < 3 else fail(*args))
    assert 'no space left' in error(invoke(folder))
    assert error(invoke(folder, '--out', folder / 'other')) and not (folder / 'other').exists()
    assert {each: each.read_bytes() for each in folder.rglob('*.*') if each.is_file()} == before


def test_out_that_is_a_file(results):
    folder = results(run_lines())
    (folder / 'taken').write_text('mine')
    assert f"'{folder}/taken' is a file" in error(invoke(folder, '--out', folder / 'taken'))
    assert (folder / 'taken').read_text() == 'mine'


def test_a_path_with_a_long_name(results):
    report = report_of(results(run_lines(dataset='/a/' + 'long/' * 60 + 'x.hdf5', origin='file')))
    assert all(len(name) <= 100 for name in report.figures) and not any('_2' in name for name in report.figures)
    figure = next(each for name, each in report.figures.items() if name.startswith('iterations_'))
    assert matplotlib.image.imread(io.BytesIO(figures.render(figure)['png'])).shape[1] > 200


def test_datasets_whose_files_would_have_one_name(results):
    report = report_of(results(run_lines(dataset='a-b'), run_lines(dataset='a_b', means=(0.0, 0.0, 1.0))))
    named = captions(report)
    assert {'iterations_a_b', 'iterations_a_b_2', 'seconds_a_b', 'seconds_a_b_2'} <= set(named)
    assert 'a_b:' in named['iterations_a_b_2'] and 'a-b:' in named['iterations_a_b']
