"""PyTorch: nn.RNN (nn.GRU, nn.LSTM), nn.Linear, cross entropy, Adagrad, clip_grad_norm_, one thread.  A peer of peers.c.

The recurrent layer takes its input as a dense row, but a token is a row of W_xh.  For a small vocabulary the row is one-hot; for
a large one it comes from nn.Embedding with sparse gradients, through an identity that is not trained.

The second bias of a gate is the same bias again, so it is not trained; but that of GRU's candidate is another.
"""

import torch
from torch.nn.functional import cross_entropy

from peer import Task, serve

task = Task()
H, V, T, B = task.H, task.V, task.T, task.B
width = task.G * H
torch.set_num_threads(1)
one_hot = V <= 2 * H or V <= 256

rnn = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[task.cell](V if one_hot else width, H)
out = torch.nn.Linear(H, V)
embedding = None if one_hot else torch.nn.Embedding(V, width, sparse=True, _weight=torch.from_numpy(task.W_xh))
with torch.no_grad():
    rnn.weight_ih_l0.copy_(torch.from_numpy(task.W_xh).T if one_hot else torch.eye(width))
    rnn.weight_hh_l0.copy_(torch.from_numpy(task.W_hh).T)
    rnn.bias_ih_l0.zero_()
    rnn.bias_hh_l0.zero_()
    out.weight.copy_(torch.from_numpy(task.W_hy).T)
    out.bias.zero_()
rnn.bias_hh_l0.requires_grad_(task.cell == "gru")
rnn.weight_ih_l0.requires_grad_(one_hot)

modules = [rnn, out] + ([] if one_hot else [embedding])
params = [p for module in modules for p in module.parameters() if p.requires_grad]
optimizer = torch.optim.Adagrad(params, lr=task.rate, eps=task.epsilon)
rows = torch.eye(V) if one_hot else embedding
xs, ys = torch.from_numpy(task.x), torch.from_numpy(task.y)


def step(chunk):
    x = rows[xs[chunk]] if one_hot else embedding(xs[chunk])
    h, _ = rnn(x)
    loss = cross_entropy(out(h).view(T * B, V), ys[chunk].view(T * B))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if task.cell == "gru":
        rnn.bias_hh_l0.grad[: 2 * H].zero_()
    torch.nn.utils.clip_grad_norm_(params, task.limit)
    optimizer.step()
    return loss.detach()


serve(task, step)
