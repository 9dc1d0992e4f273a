"""benchmarks/evidence.py: the plan's size, what is listed, what is run and what is not run again."""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import benchmark

from ding_cawr.compare import results
from ding_cawr.compare.presets import form
from ding_cawr.score import normalized_score

evidence = benchmark('evidence')
PARTS = {part.name: part for part in evidence.PLAN}
RAW = evidence.ROOT / 'benchmarks' / 'results' / 'evidence' / 'results.jsonl'
CRITICS = replace(evidence.TABLE_1[0].critics, iterations=6)
TINY = [evidence.Part(
    'c', 'tiny', [evidence.BUNDLED], [form('l1', 'normal', CRITICS)], iterations=4, seeds=[3], eval_freq=2,
    episodes=1
)]


@pytest.mark.parametrize('name, runs', [
    ('a', 7 * 7 * 3), ('a, published', 7 * 3 * 3), ('b', 5), ('c', 2 * (5 * 6 + 1)), ('d', 4 * (5 * 2 + 1) * 2),
    ('e', 2 * 3), ('e, hopper-medium', 3 * 3), ('e, hopper-medium-replay', 3 * 3), ('f', 10 * 3 * 3),
    ('a, reported', 7 * 7 * 3), ('g', 3 * 4), ('h', 2 * 5), ('i', 2 * 2 * 3), ('j', 10 * 3 * 3), ('k', 4 * 5),
    ('l', 4 * 2), ('b, a2pr', 2),
])
def test_the_plan_has_the_runs_that_it_says(name, runs):
    part = PARTS[name]
    jobs = [job for seed in part.seeds for each in part.sets for job in part.jobs(evidence.described(each), seed)]
    assert len(jobs) == len({job.title for job in jobs}) == runs
    for job in jobs:
        assert job.budget.iterations % part.eval_freq == 0
        assert job.critics is None or job.critics.budget.iterations == {'c': 100_000, 'd': 20_000}[name]


def test_corrupted_actions_are_runs_of_their_own():
    part = PARTS['d']
    jobs = part.jobs(evidence.described(evidence.DOPE), 0)
    rates = [(job.dataset.corruption or {'rate': 0.0})['rate'] for job in jobs]
    assert rates == sorted(rates) and set(rates) == {0.0, 0.1, 0.3, 0.5}


def test_given_advantages_are_compared_on_the_same_rows(tmp_path):
    """With rewards as the whole set has them, in a file that is the subset of it."""
    part = PARTS['e, hopper-medium-replay']
    dataset = evidence.described(*part.sets)
    assert dataset.path == Path('given/hopper_medium_replay_given.hdf5') and dataset.env_id == 'hopper-medium-replay-v2'
    learnt, given, bc = (job.settings for job in part.jobs(dataset, 0))
    assert [each['learn'].get('advantage') for each in (learnt, given, bc)] == [None, 'dataset', 'none']
    assert learnt['collect']['reward']['scale'] == evidence.REWARD_FACTORS['hopper-medium-replay']
    assert all(not each['env'].get('reward_norm') for each in (learnt, given, bc))
    whole, = PARTS['e'].jobs(evidence.described('hopper-medium-replay'), 0)
    assert whole.settings['env']['reward_norm'] == 'iql_locomotion'
    with pytest.raises(FileNotFoundError, match='hopper_medium_replay_given.hdf5; make it .* benchmarks/advantages.py'):
        evidence.found(*part.sets, tmp_path)


def test_runs_that_are_done_stay_done():
    """A new key of the configuration must not make other runs of those in the file."""
    file = Path(evidence.__file__).parent / 'results/evidence/results.jsonl'
    lines = map(json.loads, file.read_text().splitlines())
    done = {results.identity({**line, 'dataset_sha256': ''}) for line in lines}
    for part, policies in (
        ('a', {'bc', 'iql', 'td3_bc', 'a2pr_mask_quick'}), ('d', {'l1+none', 'huber+normal', 'critics_20000'}),
        ('b', {'cawr', 'iql'}),
    ):
        jobs = PARTS[part].jobs(evidence.described(evidence.DOPE), 0)
        planned = {results.identity({**job.about(0), 'dataset_sha256': ''}): job.policy.name for job in jobs}
        assert policies <= {planned.get(identity) for identity in done}


def test_a_stand_in_that_is_missing_is_named(tmp_path, capsys):
    options = ['--data', str(tmp_path), '--results', str(tmp_path / 'r.jsonl'), '--work', str(tmp_path / 'w')]
    with pytest.raises(SystemExit, match='2'):  # the first set of this part is a stand-in, so that nothing is trained
        evidence.main(options, [part for part in evidence.PLAN if part.name == 'g'])
    assert 'hopper_medium-v2.hdf5, the stand-in hopper-medium:dope' in capsys.readouterr().err


def test_no_runs_at_once_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        evidence.main(['--data', str(tmp_path), '--jobs', '0'], TINY)
    assert '--jobs is 0; it must be 1 or more' in capsys.readouterr().err


def test_a_part_alone_is_listed_and_absent_results_are_named(tmp_path, capsys):
    evidence.main(['--list', '--part', 'h', '--results', str(tmp_path / 'none.jsonl')])
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[1:-1]] == ['h'] and told[-1].startswith('0 runs done, 10 missing')
    with pytest.raises(SystemExit, match='2'):
        evidence.main(['--table', '--results', str(tmp_path / 'none.jsonl')])
    assert 'none.jsonl, which is not a file' in capsys.readouterr().err


def test_a_run_is_done_once_and_listed(tmp_path, capsys):
    file, work = tmp_path / 'deep' / 'results.jsonl', tmp_path / 'work'
    options = ['--data', str(tmp_path), '--results', str(file), '--work', str(work)]

    def listed() -> str:
        evidence.main([*options, '--list'], TINY)
        return capsys.readouterr().out

    assert '0 runs done, 2 missing' in listed()
    for _ in range(2):
        with pytest.raises(SystemExit, match='0'):
            evidence.main(options, TINY)
        critics, policy = map(json.loads, file.read_text().splitlines())
        assert '2 runs done, 0 missing' in listed()
    assert critics['policy'] == 'critics_100000' and critics['evaluations']['iteration'] == [2, 4, 6]
    assert policy['policy'] == 'l1+normal' and policy['evaluations']['iteration'] == [2, 4] and policy['seed'] == 3
    assert len(policy['commit']) == 40 and policy['clean'] in (True, False) and policy['preset'] == 'evidence c'
    assert [len(returns) for returns in policy['evaluations']['returns']] == [1, 1]
    assert results.read(file).finished.run.nunique() == 2
    kept = [path.name for path in (work / 'runs').iterdir()]
    assert len(kept) == 1 and 'critics_100000' in kept[0]
    evidence.main([*options, '--report', str(tmp_path / 'reports')], [*TINY, PARTS['b']])
    assert [path.name for path in (tmp_path / 'reports').iterdir()] == ['c']  # no run of the other part is done
    report = (tmp_path / 'reports/c/report/report.md').read_text()
    assert 'Table 1 on bundled:hopper-medium-expert' in report and '1 finished run of 1 policy' in report
    assert (tmp_path / 'reports/c/scores.png').read_bytes().startswith(b'\x89PNG')
    corruption = dict(columns=['action'], rate=0.5, scale=1.0, seed=0)
    line = json.loads((tmp_path / 'reports/c/results.jsonl').read_text())
    both = [line, {**line, 'corruption': corruption, 'run': 'other'}]
    (tmp_path / 'two.jsonl').write_text('\n'.join(map(json.dumps, both)))
    headings = [axes.get_title() for axes in evidence.scores(tmp_path / 'two.jsonl', 'noise').axes]
    assert headings[0] == evidence.BUNDLED and len(headings) == 2 and '0.5' in headings[1]
    file.write_text(json.dumps({**critics, 'dataset_sha256': 'other'}) + '\n')
    with pytest.raises(SystemExit, match='2'):
        evidence.main(options, TINY)
    assert 'is not the file that the results' in capsys.readouterr().err


def test_scores_against_corrupted_rows_are_means_of_the_raw_lines(tmp_path):
    folder, = evidence.report([PARTS['d']], RAW, tmp_path)
    figure = evidence.noise(folder / evidence.FILE, 'd')
    drawn = {axes.get_title(): {line.get_label(): line.get_xydata() for line in axes.lines} for axes in figure.axes}
    assert drawn.keys() == {'priority none', 'priority normal'} and (folder / 'noise.png').stat().st_size > 0
    for heading, lines in drawn.items():
        assert list(lines) == list(evidence.LOSSES)
        for loss, points in lines.items():
            runs = [run for run in map(json.loads, (folder / evidence.FILE).read_text().splitlines())
                    if run['policy'] == f"{loss}+{heading.removeprefix('priority ')}"]
            wanted = {}
            for run in runs:
                rate = (run['corruption'] or dict(rate=0))['rate']
                scores = [normalized_score(run['env_id'], np.mean(each)) for each in run['evaluations']['returns']]
                wanted.setdefault(rate, []).append(np.mean(scores))
            assert points.tolist() == [pytest.approx([rate, np.mean(wanted[rate])]) for rate in sorted(wanted)]
            assert sorted(wanted) == [0, 0.1, 0.3, 0.5]
