"""Report a measurement: ratios, targets, the machine; as a dict for JSON, and that as text."""
from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import textwrap
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from ding_cawr.bench.measure import Measurement, Options
from ding_cawr.bench.parts import HIDDEN
from ding_cawr.machine import machine, now, versions
from ding_cawr.networks.products import Plain, fastest

#: The parts by name, as the text calls them.
PARTS = {
    'floor': 'floor: products of the hidden layers',
    'update': 'update',
    'sample_uniform': 'uniform sampling',
    'sample_prioritized': 'prioritized sampling',
    'update_priority': 'priority update',
    'bare': 'bare: sampling, update, priorities',
    'pipeline': 'pipeline: ding -m serial_offline',
    'td3_bc': "DI-engine's td3_bc, its pipeline",
}
SELECTION = ('sample_uniform', 'sample_prioritized', 'update_priority')
#: Options that the targets are for.
MEANT = ('size', 'obs_shape', 'action_shape', 'batch_size', 'algorithm')


class Target(NamedTuple):
    """A bound that a figure of the report should keep."""
    figure: str
    text: str
    bound: float
    at_most: bool = True


#: For the default options: 1,000,000 transitions of hopper's width, batch 512; cuda's for one H200.
TARGETS = {
    'cpu': (
        Target('update_per_floor', 'update / floor', 1.6),
        Target('selection_per_update', 'sampling and priorities / update', 0.08),
        Target('pipeline_per_floor', 'pipeline / floor', 1.5),
        Target('bytes_per_column_bytes', 'bytes a transition / its columns', 1.3),
        Target('seconds_to_first_iteration', 'seconds to the first iteration', 5.0),
    ),
    'cuda': (
        Target('bare_iterations_per_second', 'bare iterations/s', 5000, at_most=False),
        Target('pipeline_iterations_per_second', 'pipeline iterations/s', 2500, at_most=False),
    ),
}


def report(measurement: Measurement) -> dict:
    """Return a measurement as plain values. Times are medians over rounds, ratios medians of those within rounds."""
    options, rounds = measurement.options, measurement.rounds
    parts = {name: _part(rounds, name) for name in dict.fromkeys(name for each in rounds for name in each)}
    figures = {
        **{f'{name}_per_floor': parts[name]['per_floor'] for name in ('update', 'bare', 'pipeline', 'td3_bc')},
        'selection_per_update': median_ratio(rounds, lambda each: sum(each[s] for s in SELECTION) / each['update']),
        'td3_bc_per_pipeline': parts['td3_bc']['per_floor'] / parts['pipeline']['per_floor'],
        'bytes_per_column_bytes': measurement.bytes_buffer / (options.size * options.column_bytes),
        'seconds_to_first_iteration': measurement.seconds_to_first_iteration,
        **{f'{name}_iterations_per_second': parts[name]['iterations_per_second'] for name in ('bare', 'pipeline')},
    }
    targets = [{
        **target._asdict(), 'measured': (found := figures[target.figure]),
        'met': found <= target.bound if target.at_most else found >= target.bound
    } for target in TARGETS[options.device]]
    return {
        'date': now(),
        'options': {**dataclasses.asdict(options), 'iterations': options.total, 'rounds': options.rounds},
        'machine': {**machine(options.device == 'cuda', options.threads), 'load_average': list(os.getloadavg())},
        'versions': versions(),
        'products': fastest(HIDDEN, HIDDEN, torch.empty(0)).name if options.device == 'cpu' else Plain.name,
        'parts': parts,
        'figures': figures,
        'targets': targets,
        'memory': {
            'peak_bytes': measurement.bytes_peak,
            'peak_bytes_before_data': measurement.bytes_before,
            'peak_bytes_device': measurement.bytes_peak_device,
            'bytes_per_transition': measurement.bytes_buffer / options.size,
            'column_bytes_per_transition': options.column_bytes,
        },
        'td3_bc_rows': measurement.td3_bc_rows,
        'period': measurement.period,
        'rounds': rounds,
    }


def _part(rounds: list[dict], name: str) -> dict:
    milliseconds = [each[name] for each in rounds if name in each]
    return {
        'ms': statistics.median(milliseconds),
        'ms_at_best': min(milliseconds),
        'iterations_per_second': 1e3 / statistics.median(milliseconds),
        'per_floor': median_ratio(rounds, lambda each: each[name] / each['floor']),
    }


def median_ratio(rounds: list[dict], ratio: Callable[[dict], float]) -> float:
    """Return the median of a ratio over the rounds that have what it needs."""
    ratios = []
    for each in rounds:
        with contextlib.suppress(KeyError):
            ratios.append(ratio(each))
    return statistics.median(ratios)


def text(result: dict, others: Mapping[str, str] | None = None) -> str:
    """Return a report as text: parts (``others`` names those that are not ours), targets beside figures, conditions."""
    called, options = {**PARTS, **(others or {})}, result['options']
    lines = [
        f"{options['algorithm']}: {options['size']:,} transitions (obs {options['obs_shape']}, action "
        f"{options['action_shape']}), batch {options['batch_size']}, {options['device']}; medians of "
        f"{options['rounds']} rounds of each part in turn",
        '', f"{'part':36}{'ms':>9}{'iterations/s':>15}{'x floor':>10}",
        *('{:36}{ms:9.3f}{iterations_per_second:15,.1f}{per_floor:10.3f}'.format(called.get(name, name), **part)
          for name, part in result['parts'].items()),
        '', f"{'target':36}{'measured':>9}{'bound':>15}",
    ]
    for target in result['targets']:
        bound = f"{'<=' if target['at_most'] else '>='} {target['bound']:,g}"
        verdict = 'met' if target['met'] else 'missed'
        lines.append(f"{target['text']:36}{target['measured']:9,.4g}{bound:>15}    {verdict}")
    return '\n'.join([*lines, '', *(textwrap.fill(note, 100) for note in _notes(result))])


def _notes(result: dict) -> list[str]:
    options, memory, place = (result[key] for key in ('options', 'memory', 'machine'))
    rows, device = result['td3_bc_rows'], memory['peak_bytes_device']
    few = f', which had {rows:,} rows alone, since a million dicts take gigabytes' if rows < options['size'] else ''
    notes = [
        f"The pipeline does {result['figures']['td3_bc_per_pipeline']:.1f} iterations in the time of one of td3_bc"
        f'{few}. Each was set against the floor of its own rounds.',
        f"First iteration {result['figures']['seconds_to_first_iteration']:.2f} s after the pipeline's start, imports "
        f"aside. Buffer: {memory['bytes_per_transition']:.1f} bytes a transition, its columns "
        f"{memory['column_bytes_per_transition']}.",
        f"Peak memory {memory['peak_bytes'] / 1e6:,.0f} MB, of which {memory['peak_bytes_before_data'] / 1e6:,.0f} MB "
        f"before there were data{'' if device is None else f'; {device / 1e6:,.0f} MB of the GPU'}.",
        f"{place['gpu'] or place['cpu']}; {place['cores']} cores, {place['threads']} threads, load "
        f"{place['load_average'][0]:.1f}; products of hidden layers: {result['products']}; "
        + ', '.join(f'{name} {each}' for name, each in result['versions'].items()),
    ]
    if options['device'] == 'cuda':
        notes.append('A CUDA graph is in the bare iteration and the pipeline; the other parts launch each kernel.')
    if result['period'] > options['iterations']:
        notes.append(
            f"Kinds of iterations repeat after {result['period']:,}: the update has all, as often as they come, "
            'bare and pipeline the first ones alone, and what is done of all rows between them is in none.'
        )
    if any(options[name] != getattr(Options(), name) for name in MEANT):
        notes.append(
            'The targets and the floor are meant for 1,000,000 transitions of hopper (obs 11, action 3), batch 512 and '
            f'the preset {Options().algorithm}.'
        )
    return notes
