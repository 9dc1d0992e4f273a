"""``cawr export``: the policy of a checkpoint for other programs."""
from __future__ import annotations

import click

import ding_cawr
from ding_cawr.cli.output import json_option, write_json


@click.command()
@click.argument('checkpoint')
@click.argument('path', metavar='OUT.onnx|OUT.pt')
@json_option
def export(checkpoint: str, path: str, as_json: bool) -> None:
    """Write the policy of CHECKPOINT for programs without this package: as ONNX or as TorchScript.

    It takes raw observations and gives actions within [-1, 1]; the file must not exist.
    """
    from ding_cawr.evaluation.export import export_policy

    policy = ding_cawr.load_policy(checkpoint)
    out = export_policy(policy, path)
    if as_json:
        shapes = {'obs_shape': policy.obs_shape, 'action_shape': policy.action_shape}
        return write_json({'path': out, **shapes, 'env_id': policy.env_id, 'iteration': policy.iteration})
    click.echo(f'{out}: obs (batch, {policy.obs_shape}) to action (batch, {policy.action_shape})')
