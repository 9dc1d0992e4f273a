"""The networks of one run, or of several replicas, in one block of parameters, with gradients worked out by hand.

Row by row the block holds the networks of every replica, padded to one width. Adam and a soft update are then one
operation on a few large tensors, and on a GPU several networks are one batch of products. On a CPU they run one by
one, without the padding. Gradients of fully connected layers need no graph.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ding_cawr.networks.lanes import side_by_side
from ding_cawr.networks.memory import empty as memory_like
from ding_cawr.networks.optimizers import Adam
from ding_cawr.networks.products import Plain, available, fastest

#: name -> what the products of the hidden layers are rounded to, None for the parameters' own precision.
PRECISIONS = {'float32': None, 'bfloat16': torch.bfloat16}

#: Weight (I, O) and bias (1, O) of each layer of a network, or with a leading dimension those of a batch of networks.
Layers = list[tuple[Tensor, Tensor]]
#: Outputs (B, O) of the hidden layers by task and network, or with a leading dimension those of a batch of networks.
Scratch = list[list[list[Tensor]]]


class Pass(NamedTuple):
    """A forward pass: outputs (..., B, O) by row, and by task and network what entered each layer, which the next
    pass over the same rows, or with the same scratch memory, overwrites."""
    rows: range
    outputs: list[Tensor]
    entered: Sequence[list[list[Tensor]]]


class Block:
    """Parameters, their gradients, and forward and backward passes.

    The modules stay usable: their parameters become views of the block. ``replica_shape``, () for one run, (R,) for R
    replicas, comes first in the shapes of all inputs and outputs.

    Arguments:
        replicas: for each replica the networks by name, each a ``Sequential`` of fully connected layers with ReLU in
            between. A layer is an ``nn.Linear``, or has weights (E, I, O) and stands for E networks side by side.
        replica_shape: () or (R,).
        trained: names of the networks that are trained; they come first among the names.
        passes: ranges of rows that ``forward`` takes together, beside those of each name.
        precision: name in PRECISIONS.
        as_one: whether networks run as one batch, padded, or one by one; None: as one on a GPU.
    """

    def __init__(
        self, replicas: Sequence[Mapping[str, nn.Sequential]], replica_shape: tuple[int, ...], trained: Sequence[str],
        passes: Sequence[range], precision: str = 'float32', as_one: bool | None = None
    ) -> None:
        self.replica_shape, self.rounding, self._replicas = replica_shape, PRECISIONS[precision], len(replicas)
        modules = [{name: linears(net) for name, net in networks.items()} for networks in replicas]
        #: Rows of each name.
        self.rows = _rows(modules[0])
        self._places = {row: (name, row - rows.start) for name, rows in self.rows.items() for row in rows}
        self._sizes = [sizes for name, rows in self.rows.items() for sizes in [_sizes(modules[0][name])] * len(rows)]
        padded = [max(widths) for widths in zip(*self._sizes)]
        length = sum(_aligned(i * o) + _aligned(o) for i, o in zip(padded, padded[1:]))
        trained_rows = range(0, self.rows[trained[-1]].stop)
        shapes = [(rows, len(replicas), length) for rows in (len(self._sizes), len(trained_rows))]
        like = next(iter(modules[0].values()))[0].weight.detach()
        block, gradient = (memory.zero_() for memory in memory_like(shapes, like))
        self._as_one = block.is_cuda if as_one is None else as_one
        self._widest = max(zip(padded[1:], padded[2:-1]), key=math.prod, default=None)
        #: The back end of the hidden layers' products.
        self.products = Plain() if self._as_one or not self._widest else fastest(*self._widest, block)
        layers, gradients = _layers(block, padded), _layers(gradient, padded)
        for replica, networks in enumerate(modules):
            self._adopt(replica, networks, layers)
        self._tasks = {rows: self._networks(layers, rows) for rows in (*self.rows.values(), trained_rows, *passes)}
        self._scratch: dict[range, Scratch] = {}
        self._gradients = {
            rows: self._networks(gradients, rows) for rows in (*map(self.rows.get, trained), trained_rows)
        }
        #: For the optimizer, (rows, R, P) each.
        self.parameters = {name: _parameter(block, gradient, self.rows[name]) for name in trained}
        #: Parameters of the networks that are not trained, (rows, R, P).
        self.others = block[trained_rows.stop:]

    def use_products(self, name: str) -> bool:
        """Take the products of a back end; return whether it can be had here."""
        if self._as_one or not self._widest:
            return name == Plain.name
        found = available(name, *self._widest, self.others)
        self.products = found or self.products
        return found is not None

    def __reduce_ex__(self, protocol: int) -> Any:
        raise TypeError('a block shares memory with its modules and cannot be copied; copy those')

    def tensors(self) -> list[Tensor]:
        """Return all that training changes."""
        return [*(parameter.detach() for parameter in self.parameters.values()), self.others]

    def scratch(self, rows: range, size: int) -> Scratch:
        """Return memory for passes over B = ``size`` samples; new memory for every pass would cost page faults."""
        biases = [bias for task in self._tasks[rows] for layers in task for _, bias in layers[:-1]]
        memory = iter(memory_like([(*bias.shape[:-2], size, bias.shape[-1]) for bias in biases], biases[0]))
        return [[list(itertools.islice(memory, len(layers) - 1)) for layers in task] for task in self._tasks[rows]]

    def forward(self, rows: range, inputs: Sequence[Tensor], scratch: Scratch | None = None) -> Pass:
        """Return the outputs of the networks in these rows for their inputs (..., B, I); no graph is kept.

        Arguments:
            scratch: memory for this B; None: the rows' own, which stays where it is from the first pass on.
        """
        tasks = zip(*self._forward_tasks(rows, inputs, scratch))
        return self._passed(rows, [self._forward(*task) for task in tasks])

    def forwards(self, *passes: tuple[range, Sequence[Tensor]]) -> list[Pass]:
        """Return several passes over rows and their inputs, of networks side by side."""
        tasks = [self._forward_tasks(rows, inputs) for rows, inputs in passes]
        passed = iter(self._each(self._forward, *map(itertools.chain.from_iterable, zip(*tasks))))
        return [self._passed(rows, [next(passed) for _ in inputs]) for (rows, _), (inputs, *_) in zip(passes, tasks)]

    def backward(self, forward: Pass, gradients: Sequence[Tensor]) -> None:
        """Write the gradients of the parameters, from those of the outputs (..., B, O), to their ``.grad``."""
        rows = forward.rows
        self._each(
            self._backward, self._split(gradients, -1), forward.entered, self._tasks[rows], self._gradients[rows]
        )

    def descend(self, forward: Pass, gradients: Sequence[Tensor], optimizer: Adam) -> None:
        """Take a step of the networks of a pass.

        Arguments:
            gradients: of the outputs (..., B, O), for each row.
            optimizer: of ``parameters``.
        """
        if self._as_one:
            self.backward(forward, gradients)
            optimizer.step()
            return
        rows = forward.rows

        def descend(row: int, *networks: Sequence) -> None:
            self._backward(*networks)
            optimizer.move(*self._places[row])

        side_by_side(
            descend, rows, self._split(gradients, -1), forward.entered, self._tasks[rows], self._gradients[rows]
        )
        optimizer.count()  # here, so that an iteration that is interrupted is not counted

    def _each(self, function: Callable, *columns: Sequence) -> list:
        """Return a function of each task: side by side on a CPU."""
        return list(map(function, *columns)) if self._as_one else side_by_side(function, *columns)

    def _forward_tasks(
        self, rows: range, inputs: Sequence[Tensor], scratch: Scratch | None = None
    ) -> tuple[list[Sequence[Tensor]], list[list[Layers]], Scratch]:
        """Return inputs, networks and memory of each task."""
        size = inputs[0].shape[-2]
        if scratch is None:
            if rows not in self._scratch or self._scratch[rows][0][0][0].shape[-2] != size:
                self._scratch[rows] = self.scratch(rows, size)
            scratch = self._scratch[rows]
        return self._split(inputs, 0), self._tasks[rows], scratch

    def _passed(self, rows: range, results: Sequence[tuple[list[Tensor], list[list[Tensor]]]]) -> Pass:
        outputs, entered = zip(*results)
        return Pass(rows, self._joined(outputs, rows), entered)

    @torch.no_grad()
    def _forward(
        self, inputs: Sequence[Tensor], networks: Sequence[Layers], memory: Sequence[Sequence[Tensor]]
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Return the outputs of a task's networks, and what entered their layers."""
        passed = [_forward(*each, self.rounding, self.products) for each in zip(inputs, networks, memory)]
        return tuple(map(list, zip(*passed)))

    @torch.no_grad()
    def _backward(self, gradients: Sequence[Tensor], *networks: Sequence) -> None:
        """Write the gradients of a task's networks."""
        for each in zip(gradients, *networks):
            _backward(*each, self.rounding, self.products)

    def _networks(self, layers: Layers, rows: range) -> list[list[Layers]]:
        """Return layers (rows, R, I, O) as tasks: a single batch, or row by row the replicas at their own widths."""
        if self._as_one:
            return [[[tuple(part[rows.start:rows.stop].flatten(0, 1) for part in layer) for layer in layers]]]
        return [
            [[(weight[row, r, :i, :o], bias[row, r, :, :o])
              for (weight, bias), i, o in zip(layers, self._sizes[row], self._sizes[row][1:])]
             for r in range(self._replicas)] for row in rows
        ]

    def _split(self, tensors: Sequence[Tensor], end: int) -> list[Sequence[Tensor]]:
        """Return inputs (end 0) or gradients of outputs (end -1), (..., B, width) by row, as ``_networks`` orders."""
        if not self._as_one:
            return [tensor if self.replica_shape else [tensor] for tensor in tensors]
        width = max(sizes[end] for sizes in self._sizes)
        batch = tensors[0].new_zeros(len(tensors), *tensors[0].shape[:-1], width)
        for padded, tensor in zip(batch, tensors):
            padded[..., :tensor.shape[-1]] = tensor
        return [[batch.flatten(0, len(self.replica_shape))]]

    def _joined(self, outputs: Sequence[Sequence[Tensor]], rows: range) -> list[Tensor]:
        """Return outputs, ordered as ``_networks``, by row (..., B, O)."""
        if self._as_one:
            by_row = outputs[0][0].unflatten(0, (len(rows), *self.replica_shape))
            return [output[..., :self._sizes[row][-1]] for output, row in zip(by_row, rows)]
        return [torch.stack(each) if self.replica_shape else each[0] for each in outputs]

    def _adopt(self, replica: int, networks: Mapping[str, list[nn.Module]], layers: Layers) -> None:
        """Move the parameters of a replica's networks into the block, whose layers (rows, R, I, O) these are."""
        for name, modules in networks.items():
            rows, sizes = slice(self.rows[name].start, self.rows[name].stop), self._sizes[self.rows[name].start]
            for (weight, bias), linear, i, o in zip(layers, modules, sizes, sizes[1:]):
                weight, bias = weight[rows, replica, :i, :o], bias[rows, replica, :, :o]
                if isinstance(linear, nn.Linear):
                    weight, bias = weight[0].T, bias[0, 0]
                weight.copy_(linear.weight.detach())
                bias.copy_(linear.bias.detach())
                linear.weight.data, linear.bias.data = weight, bias


def linears(net: nn.Sequential) -> list[nn.Module]:
    """Return the layers of a network that have parameters."""
    return [layer for layer in net if hasattr(layer, 'weight')]


def _rows(networks: Mapping[str, list[nn.Module]]) -> dict[str, range]:
    """Return the rows that each name takes: one, or as many as its layers stand for."""
    rows, start = {}, 0
    for name, modules in networks.items():
        count = 1 if isinstance(modules[0], nn.Linear) else len(modules[0].weight)
        rows[name] = range(start, start + count)
        start += count
    return rows


def _parameter(block: Tensor, gradient: Tensor, rows: range) -> nn.Parameter:
    parameter = nn.Parameter(block[rows.start:rows.stop])
    parameter.grad = gradient[rows.start:rows.stop]
    return parameter


def _sizes(linears: Sequence[nn.Module]) -> list[int]:
    """Return the widths of a network from its inputs to its outputs."""
    shapes = [each.weight.T.shape if isinstance(each, nn.Linear) else each.weight.shape[1:] for each in linears]
    return [shapes[0][0], *(o for _, o in shapes)]


def _layers(block: Tensor, sizes: Sequence[int]) -> Layers:
    """Return weights (rows, R, I, O) and biases (rows, R, 1, O), views of a block (rows, R, P)."""
    layers, start = [], 0
    for i, o in zip(sizes, sizes[1:]):
        middle = start + _aligned(i * o)
        weight, bias = block[..., start:start + i * o], block[..., middle:middle + o]
        layers.append((weight.unflatten(-1, (i, o)), bias.unflatten(-1, (1, o))))
        start = middle + _aligned(o)
    return layers


def _aligned(count: int) -> int:
    """Return the least multiple of 16 numbers, 64 bytes of float32, from ``count`` on."""
    return -(-count // 16) * 16


def _forward(
    x: Tensor, layers: Layers, hidden: Sequence[Tensor], rounding: torch.dtype | None, products: Plain
) -> tuple[Tensor, list[Tensor]]:
    """Return the output, with ReLU between fully connected layers, and what entered each layer.

    Outputs of hidden layers are written to ``hidden`` where the products take memory.
    """
    affine, entered = torch.addmm if x.dim() == 2 else torch.baddbmm, [x]
    for i, ((weight, bias), out) in enumerate(zip(layers, hidden)):
        if rounding and i > 0:
            x = torch.add(torch.matmul(x.to(rounding), weight.to(rounding)), bias, out=out).relu_()
        elif i > 0 and x.dim() == 2:
            x = products.relu(x, weight, bias, out)
        else:  # few columns, for which this is fastest
            x = affine(bias, x, weight, out=out).relu_()
        entered.append(x)
    weight, bias = layers[-1]
    return affine(bias, x, weight), entered


def _backward(
    gradient: Tensor, entered: Sequence[Tensor], layers: Layers, into: Layers, rounding: torch.dtype | None,
    products: Plain
) -> None:
    """Write the gradients of weights and biases, from that of the output."""
    last = len(layers) - 1
    for i in reversed(range(len(layers))):
        x, (weight, _), (weight_gradient, bias_gradient) = entered[i], layers[i], into[i]
        torch.sum(gradient, dim=-2, keepdim=True, out=bias_gradient)
        if i == last:  # few columns, for which this order of the factors is faster
            weight_gradient.copy_(torch.matmul(gradient.mT, x).mT)
            gradient = gradient * weight.mT if gradient.shape[-1] == 1 else torch.matmul(gradient, weight.mT)
        elif rounding and i > 0:
            rounded = gradient.to(rounding)
            weight_gradient.copy_(torch.matmul(x.mT.to(rounding), rounded))
            gradient = torch.matmul(rounded, weight.mT.to(rounding)).to(gradient.dtype)
        elif i > 0:
            products.weight_gradient(x, gradient, weight_gradient)
            gradient = products.input_gradient(gradient, weight)
        else:
            torch.matmul(x.mT, gradient, out=weight_gradient)
        if i:  # the ReLU before this layer, whose output is 0 where it let nothing through
            torch.ops.aten.threshold_backward.grad_input(gradient, x, 0, grad_input=gradient)
