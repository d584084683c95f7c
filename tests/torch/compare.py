"""bptt beside PyTorch: the same weights, the same tokens.  Usage: compare.py BPTT.  The status is 1 when anything differs.

For every cell, one and two layers, losses as mean and as sum, SGD and Adam, float and double: PyTorch draws the weights, bptt
imports and exports them, and then both train.  Compared are the gradients of the first chunk (bptt grad), the loss of each of 50
steps (bptt train --log), the weights after them (bptt export) and the loss of all data under these (bptt import, bptt eval).

PyTorch has two biases where bptt has one.  bptt imports their sum and exports the second as 0; so that it stays there, its
gradient is dropped here, but for a GRU's candidate, whose two biases are two parameters in both.
"""

import csv
import itertools
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
from torch.nn.functional import cross_entropy

BPTT = os.path.abspath(sys.argv[1])
H, V, T, K, B = 12, 11, 13, 5, 3
STEPS, LENGTH, LIMIT = 50, 300, 1.0  # LENGTH: predictions of a stream; LIMIT: of the gradient's norm
RATES = {"sgd": 0.2, "adam": 0.01}
RNN, GRU, LSTM = torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM
CELLS = {"tanh": ("rnn", RNN), "relu": ("rnn", RNN), "gru": ("gru", GRU), "lstm": ("lstm", LSTM)}
# Largest differences allowed, of gradients and weights relative to the largest number of the tensor.
ALLOWED = {"f32": dict(gradient=1e-5, loss=1e-4, weight=1e-4, evaluation=1e-5),
           "f64": dict(gradient=1e-12, loss=1e-8, weight=1e-11, evaluation=1e-12)}


def bptt(*words):
    done = subprocess.run([BPTT, *words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bptt {' '.join(words)}: {done.stderr}")
    return done.stdout


def read_safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            kind = {"F32": "<f4", "F64": "<f8"}[entry["dtype"]]
            tensors[name] = np.frombuffer(data[begin:end], kind).reshape(entry["shape"])
    return tensors


def difference(ours, theirs):
    """The largest over all tensors, relative to each one's largest number; infinite when names or shapes differ."""
    if ours.keys() != theirs.keys() or any(ours[name].shape != theirs[name].shape for name in ours):
        return float("inf")
    return max(np.abs(ours[name] - theirs[name]).max() / max(np.abs(theirs[name]).max(), 1e-6) for name in ours)


class Peer:
    """The network in PyTorch, trained as bptt trains: streams side by side, chunks of K in sequences of T, truncated between."""

    def __init__(self, cell, layers, reduction, optimizer, dtype, carry):
        word, module = CELLS[cell]
        more = {"nonlinearity": cell} if word == "rnn" else {}
        self.kind = torch.float64 if dtype == "f64" else torch.float32
        net = torch.nn.ModuleDict({"rnn": module(V, H, layers, **more), "out": torch.nn.Linear(H, V)})
        self.net = net.to(self.kind)
        self.frozen = 2 * H if word == "gru" else None  # rows of a second bias that bptt does not have; None: all
        self.reduction, self.carry = reduction, carry
        rule = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
        self.rule = rule(self.net.parameters(), lr=RATES[optimizer])

    def weights(self):
        return {name: value.detach().numpy().copy() for name, value in self.net.state_dict().items()}

    def load(self, weights):
        self.net.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})

    def gradients(self):
        return {name: value.grad.numpy().copy() for name, value in self.net.named_parameters()}

    def forward(self, x, y, state):
        """Loss summed over the labels y[steps][streams], and the state after them."""
        h, state = self.net["rnn"](torch.eye(V, dtype=self.kind)[x], state)
        return cross_entropy(self.net["out"](h).view(-1, V), y.reshape(-1), reduction="sum"), state

    @staticmethod
    def cut(state):
        return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()

    def chunks(self, x, y):
        """Chunks of the streams x[steps][streams], and whether one begins a sequence."""
        for first in range(0, len(x), T):
            for t in range(first, first + T, K):
                end = min(t + K, first + T, len(x))
                if t < end:
                    yield x[t:end], y[t:end], t == first

    def learn(self, x, y, state):
        """One step.  Returns the mean loss, the state and the gradients before any was dropped."""
        loss, state = self.forward(x, y, state)
        self.rule.zero_grad()
        (loss if self.reduction == "sum" else loss / y.numel()).backward()
        gradients = self.gradients()
        for name, value in self.net.named_parameters():
            if "bias_hh" in name:
                value.grad[: self.frozen] = 0
        norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in self.net.parameters()))
        for p in self.net.parameters():
            p.grad *= min(1.0, LIMIT / float(norm))
        self.rule.step()
        return loss.item() / y.numel(), self.cut(state), gradients

    def train(self, x, y):
        """Losses of STEPS steps, and the gradients of the first."""
        losses, first, state = [], None, None
        for cx, cy, begins in itertools.islice(self.chunks(x, y), STEPS):
            loss, state, gradients = self.learn(cx, cy, state if self.carry or not begins else None)
            losses.append(loss)
            first = first or gradients
        return losses, first

    def evaluate(self, tokens):
        """Mean loss of one stream."""
        total, state = 0.0, None
        with torch.no_grad():
            for x, y, begins in self.chunks(tokens[:-1, None], tokens[1:, None]):
                loss, state = self.forward(x, y, state if self.carry or not begins else None)
                total += loss.item()
        return total / (len(tokens) - 1)


def compare(case, tokens):
    cell, layers, reduction, optimizer, dtype = case
    carry = layers == 1
    spec = dict(name="net", cell=CELLS[cell][0], layers=layers, dtype=dtype, reduction=reduction)
    spec.update(hidden=H, vocab=V, T=T, K=K, batch=B)
    if CELLS[cell][0] == "rnn":
        spec["activation"] = cell
    with open("net.lua", "w") as file:
        fields = [f"{key} = {json.dumps(value)}" for key, value in spec.items()]
        rule = f'optimizer = {{"{optimizer}", rate = {RATES[optimizer]}}}'
        file.write(f"return {{{', '.join(fields)}, {rule}, clip = {{norm = {LIMIT}}}, carry = {str(carry).lower()}}}\n")

    tokens.numpy().astype(np.uint8).tofile("tokens")

    peer = Peer(*case, carry)
    np.savez("start.npz", **peer.weights())
    bptt("import", "start.npz", "--spec", "net.lua", "-o", "start.safetensors")
    bptt("export", "start.safetensors", "--to", "npz", "-o", "start_out.npz")
    peer.load(dict(np.load("start_out.npz")))
    streams = tokens[:-1].view(B, LENGTH).T, tokens[1:].view(B, LENGTH).T
    losses, gradients = peer.train(*streams)

    bptt("grad", "net.lua", "--weights", "start.safetensors", "--data", "tokens", "-o", "gradients.safetensors")
    bptt("train", "--resume", "start.safetensors", "--data", "tokens", "--steps", str(STEPS), "--log", "log.csv", "-o",
         "end.safetensors", "-q", "--backend", "tcc")
    bptt("export", "end.safetensors", "--to", "npz", "-o", "end.npz")
    bptt("import", "end.npz", "--spec", "net.lua", "-o", "again.safetensors")
    evaluation = json.loads(bptt("eval", "again.safetensors", "--data", "tokens", "--json"))["loss"]
    with open("log.csv") as file:
        ours = [float(line["loss"]) for line in csv.DictReader(file)]
    return dict(gradient=difference(read_safetensors("gradients.safetensors"), gradients),
                loss=max(abs(a - b) for a, b in zip(ours, losses)) if len(ours) == len(losses) == STEPS else float("inf"),
                weight=difference(dict(np.load("end.npz")), peer.weights()),
                evaluation=abs(evaluation - peer.evaluate(tokens)))


def main():
    torch.set_num_threads(1)
    torch.manual_seed(1)
    cases = list(itertools.product(CELLS, (1, 2), ("mean", "sum"), RATES, ALLOWED))
    wrong = 0
    tokens = torch.randint(V, (B * LENGTH + 1,))
    print("cell layers reduction optimizer dtype  gradient  loss      weight    evaluation")
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            errors = compare(case, tokens)
            os.chdir("/")
        bad = [name for name in errors if not errors[name] <= ALLOWED[case[-1]][name]]
        wrong += bad != []
        cell, layers, reduction, optimizer, dtype = case
        figures = "  ".join(f"{error:.2e}" for error in errors.values())
        remark = "  MISMATCH: " + ", ".join(bad) if bad else ""
        print(f"{cell:4} {layers:6} {reduction:9} {optimizer:9} {dtype:5}  {figures}{remark}", flush=True)
    print(f"torch {torch.__version__}: {len(cases) - wrong} of {len(cases)} agree")
    return wrong > 0


sys.exit(main())
